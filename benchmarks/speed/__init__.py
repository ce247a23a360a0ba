"""alignzoo against TRL: same weights file, same rows in the same order, same mathematics, one process each."""
