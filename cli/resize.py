"""`mixer resize`: a trained model for larger images."""

from pathlib import Path
from typing import Annotated

import typer

from .terminal import options, output


def resize(
    model: Annotated[str, typer.Argument(help=options.MODEL_HELP, metavar="MODEL")],
    out: Annotated[Path, typer.Argument(help="The model folder to write.", metavar="OUT")],
    image_size: Annotated[
        str,
        typer.Option(
            "--image-size",
            help="448, or height x width; whole multiples of the size it was trained on.",
            metavar="HxW",
        ),
    ],
    dtype: Annotated[
        options.DType | None,
        typer.Option("--dtype", help="Number format to store. Default: that of MODEL."),
    ] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model for larger images, with the weights of a trained one.

    By the paper's appendix C: token-mixing matrices become block-diagonal with copies of the
    trained ones.
    """
    size = options.parse_image_size(image_size)
    from mixer_mlx.convert import resize as run

    with output.fetching(quiet=quiet) as listener:
        done = run(model, out, image_size=size, dtype=dtype, force=force, listener=listener)
    if not quiet:
        output.say_written(out, done.info.config)
