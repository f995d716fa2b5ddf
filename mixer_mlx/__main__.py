"""`python -m mixer_mlx` is the command `mixer`."""

from mixer_mlx.cli.start import main

if __name__ == "__main__":
    main()
