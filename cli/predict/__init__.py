"""`mixer predict`: classify images."""
