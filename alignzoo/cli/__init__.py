"""The commands of `alignzoo`."""
