"""Plackett-Luce reward models."""
