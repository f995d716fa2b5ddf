"""What a model is worth, and images of it."""
