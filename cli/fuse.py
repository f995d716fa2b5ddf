"""`mixer fuse`: adapters and their base to an ordinary model."""

from pathlib import Path
from typing import Annotated

import typer

from mixer_mlx.choices import DType

from .terminal import options, output


def fuse(
    run: Annotated[
        str,
        typer.Argument(help="Run of fine-tune --lora-rank, or its best/ or last/.", metavar="RUN"),
    ],
    out: Annotated[Path, typer.Argument(help="Model folder to write.", metavar="OUT")],
    dtype: Annotated[DType, typer.Option("--dtype", help="Number format to store.")] = "float32",
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Merge LoRA adapters into the model that they were trained from.

    OUT is an ordinary model folder. RUN also works as -m, as long as that model exists.
    """
    from mixer_mlx.convert import fuse as run_fuse

    with output.fetching(quiet=quiet) as listener:
        done = run_fuse(run, out, dtype=dtype, force=force, listener=listener)
    if not quiet:
        output.say_written(out, done.info.config)
