"""Data that is made up and can be checked: prompts without end, and a verifier as their reward."""
