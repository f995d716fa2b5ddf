"""Measure a model's speed and memory, and compare machines."""
