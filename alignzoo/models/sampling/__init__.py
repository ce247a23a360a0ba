"""How a policy writes completions: one face, `generate`, whatever the loop."""
