"""Our model -> files for other libraries."""
