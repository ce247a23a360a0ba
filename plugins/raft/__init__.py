"""Fine-tuning on the best of several samples."""
