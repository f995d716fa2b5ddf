"""Training and fine-tuning: `fit`, and the recipes as data."""
