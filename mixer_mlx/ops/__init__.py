"""The model's operations: activations and linear maps with custom derivatives.

Importing it gives MLX's CPU a fast BLAS (`runtime/openblas.py`).
"""

from mixer_mlx.runtime import openblas

openblas.prepare()
