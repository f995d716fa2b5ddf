"""What a model is worth, and pictures of it."""
