"""The whole of RLHF on the story model, and what came of it."""
