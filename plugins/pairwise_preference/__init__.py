"""Preference models that read both completions."""
