"""`mixer export`: a model for other libraries."""

from pathlib import Path
from typing import Annotated

import typer

from mixer_mlx.choices import ExportFormat

from .terminal import options, output


def export(
    model: Annotated[str, typer.Argument(help=options.MODEL_HELP, metavar="MODEL")],
    out: Annotated[
        Path,
        typer.Argument(help="Folder (timm) or .npz file (jax) to write.", metavar="OUT"),
    ],
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format", help="timm: a repository as on the Hub; jax: official JAX weights."
        ),
    ],
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Export a model to timm or to the official JAX code.

    In float32; weights that came from there are written back bit for bit.
    """
    from mixer_mlx.convert import export as run

    with output.fetching(quiet=quiet) as listener:
        done = run(model, out, format=format, force=force, listener=listener)
    if quiet:
        return
    for note in done.notes:
        output.say(f"Note: {note}.")
    output.say_written(out, done.info.config)
