"""What the model is computed with: activations and linear maps with derivatives of their own."""
