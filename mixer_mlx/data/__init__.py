"""Pictures with classes, on disk, into batches."""
