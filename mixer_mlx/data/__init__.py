"""Labelled images: reading datasets, augmenting, and batching."""
