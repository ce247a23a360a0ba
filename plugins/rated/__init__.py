"""Offline learning from completions that are rated one by one: weighed likelihoods, without a reference."""
