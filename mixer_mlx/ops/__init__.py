"""The model's operations: activations and linear maps with custom derivatives."""
