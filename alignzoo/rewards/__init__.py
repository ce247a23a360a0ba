"""Rewards: the task's own, any Python callable, a reward model, and weighted sums of them."""
