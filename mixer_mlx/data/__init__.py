"""Images with classes, on disk, into batches."""
