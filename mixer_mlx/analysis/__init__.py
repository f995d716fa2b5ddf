"""Evaluating models, checking datasets, and drawing the results."""
