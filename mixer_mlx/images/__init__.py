"""Image files: found, opened safely, decoded upright, and preprocessed for a model."""
