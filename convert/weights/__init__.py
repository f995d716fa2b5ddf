"""Foreign weights files, opened safely: names and shapes first, tensors on request."""
