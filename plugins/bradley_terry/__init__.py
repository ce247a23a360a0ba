"""Bradley-Terry reward models."""
