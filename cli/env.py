"""`mixer env`: what MLX has here, and what would make it faster."""

from .terminal import options, output


def env(format: options.FormatOption = "table") -> None:
    """Show versions, device, memory, BLAS and compiler, and what to install to be faster."""
    from mixer_mlx.runtime import backend

    output.write_record(backend.describe(), format)
