"""`python -m mixer_mlx.cli` is the command `mixer`, as MLX's launcher can start it."""

from .start import main

if __name__ == "__main__":
    main()
