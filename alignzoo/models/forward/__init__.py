"""How a network reads completions: one face, `states`, whatever the layout of rows and the kernel."""
