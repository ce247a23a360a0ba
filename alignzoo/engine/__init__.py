"""The engine: one `transformers.Trainer` subclass that runs every algorithm, and what it needs around it."""
