"""alignzoo: one loop, every alignment algorithm."""

__version__ = "0.1.0"
