"""Losses on pairs that differ in how they link the log-ratios of both sides."""
