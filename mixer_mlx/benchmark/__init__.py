"""How fast a model is here: jobs, their timing, and the file that compares machines."""
