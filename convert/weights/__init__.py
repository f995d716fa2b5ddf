"""Foreign weights files, opened safely: names and shapes first, tensors when they are asked for."""
