"""The exact task: completions few enough to enumerate, so that the best reachable policy is known."""
