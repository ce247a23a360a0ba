"""alignzoo beside TRL on one GPU, from a bare machine, in ten minutes."""
