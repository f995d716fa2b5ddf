"""The model's operations: activations, linear maps and layer norm with custom derivatives.

Importing it gives MLX's CPU a fast BLAS (`runtime/openblas.py`).
"""

from mixer_mlx.runtime import openblas

openblas.prepare()
