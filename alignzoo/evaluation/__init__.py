"""Evaluation: the exact optimum where it can be had, and statistics over runs."""
