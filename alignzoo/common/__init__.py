"""What many rooms need and none of them owns: files, randomness, words."""
