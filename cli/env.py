"""`mixer env`: environment and performance tips."""

from .terminal import options, output


def env(format: options.FormatOption = "table") -> None:
    """Show versions, device, memory, BLAS and compiler, and performance tips."""
    from mixer_mlx.runtime import backend

    output.write_record(backend.describe(), format)
