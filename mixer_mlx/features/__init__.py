"""What a model's features tell: vectors, neighbours, and linear classifiers on top of them."""
