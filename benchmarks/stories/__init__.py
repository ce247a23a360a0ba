"""The story model: how it was trained, measured and packed. `python -m benchmarks.stories --help`."""
