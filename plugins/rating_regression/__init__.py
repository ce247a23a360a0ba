"""Reward models fitted to ratings."""
