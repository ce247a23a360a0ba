"""The configuration tree: train.yaml and its groups."""
