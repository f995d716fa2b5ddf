"""Training and fine-tuning: `fit`, and recipes as data."""
