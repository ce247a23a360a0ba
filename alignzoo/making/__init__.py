"""Training data made by sampling from the starting policy and labelling by a reward: cached samples, noisy raters, views."""
