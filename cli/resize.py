"""`mixer resize`: make a trained model take larger images."""

from pathlib import Path
from typing import Annotated

import typer

from mixer_mlx.choices import DType

from .terminal import options, output


def resize(
    model: Annotated[str, typer.Argument(help=options.MODEL_HELP, metavar="MODEL")],
    out: Annotated[Path, typer.Argument(help="Model folder to write.", metavar="OUT")],
    image_size: Annotated[
        str,
        typer.Option(
            "--image-size",
            help="New size, e.g. 448 or 448x672 (height x width): multiples of the trained size.",
            metavar="HxW",
        ),
    ],
    dtype: Annotated[
        DType | None,
        typer.Option("--dtype", help="Number format to store. Default: as in MODEL."),
    ] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a trained model take larger images.

    The token-mixing matrices become block-diagonal, with copies of the trained ones (the paper's
    appendix C).
    """
    size = options.parse_image_size(image_size)
    from mixer_mlx.convert import resize as run

    with output.fetching(quiet=quiet) as listener:
        done = run(model, out, image_size=size, dtype=dtype, force=force, listener=listener)
    if not quiet:
        output.say_written(out, done.info.config)
