"""Image files: found, opened safely, decoded upright, made into what a model takes."""
