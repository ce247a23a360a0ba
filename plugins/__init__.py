"""One folder, one algorithm: <name>.py, README.md (its card), presets/*.yaml (named variants)."""
