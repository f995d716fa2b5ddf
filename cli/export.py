"""`mixer export`: a model for other people's code."""

from pathlib import Path
from typing import Annotated

import typer

from .terminal import options, output


def export(
    model: Annotated[str, typer.Argument(help=options.MODEL_HELP, metavar="MODEL")],
    out: Annotated[
        Path,
        typer.Argument(help="A folder to write (timm), or an .npz file (jax).", metavar="OUT"),
    ],
    format: Annotated[
        options.ExportFormat,
        typer.Option(
            "--format", help="A repository as timm's on the Hub, or official JAX weights."
        ),
    ],
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model as timm, or the official JAX code, reads it.

    In float32, bit for bit where the weights came from there.
    """
    from mixer_mlx.convert import export as run

    with output.fetching(quiet=quiet) as listener:
        done = run(model, out, format=format.value, force=force, listener=listener)
    if quiet:
        return
    theirs = {"timm": "gelu", "jax": "gelu_tanh"}[format.value]
    if done.info.config.hidden_act != theirs:
        output.say(
            f"Note: the model was trained with {done.info.config.hidden_act}; {format.value} runs "
            f"{theirs} unless told otherwise, which moves logits by about 1e-3."
        )
    output.say_written(out, done.info.config)
