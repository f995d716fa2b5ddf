"""`mixer export`: a model for other libraries."""

from pathlib import Path
from typing import Annotated

import typer

from mixer_mlx.choices import (
    CoreMLTarget,
    ExportFormat,
    ExportInput,
    ExportPrecision,
    ExportWeights,
)
from mixer_mlx.errors import ConfigError

from .terminal import options, output


def export(
    model: Annotated[str, typer.Argument(help=options.MODEL_HELP, metavar="MODEL")],
    out: Annotated[
        Path,
        typer.Argument(
            help="Folder (timm), .npz (jax), .onnx, .mlpackage (coreml), .aimodel (coreai) or "
            ".html file (html) to write.",
            metavar="OUT",
        ),
    ],
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="timm: a repository as on the Hub; jax: official JAX weights; onnx: a network for "
            "ONNX Runtime; coreml: an image classifier for Xcode; coreai: for Apple's Core AI, "
            "experimental; html: a page that works offline.",
        ),
    ],
    input: Annotated[
        ExportInput,
        typer.Option(
            "--input",
            help="What the network takes (onnx, coreml, coreai): image, uint8 pixels; array, "
            "float32 pixels normalised by the caller.",
        ),
    ] = "image",
    weights: Annotated[
        ExportWeights,
        typer.Option("--weights", help="Number format to store matrices in (onnx, html)."),
    ] = "float32",
    softmax: Annotated[
        bool,
        typer.Option("--softmax", help="Give probabilities in place of logits (onnx, coreai)."),
    ] = False,
    compute_precision: Annotated[
        ExportPrecision,
        typer.Option("--compute-precision", help="Number format to compute in (coreml)."),
    ] = "float16",
    minimum_target: Annotated[
        CoreMLTarget,
        typer.Option(
            "--minimum-target",
            help="Oldest system that opens the package (coreml); iOS15 means macOS 12, too.",
        ),
    ] = "iOS15",
    runtime: Annotated[
        Path | None,
        typer.Option(
            "--runtime",
            help="Folder of the npm package onnxruntime-web, which the page will contain (html). "
            "Default: node_modules/onnxruntime-web.",
            metavar="DIR",
        ),
    ] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Export a model to timm, the official JAX code, ONNX, Core ML or a page.

    timm and jax are in float32; weights that came from there are written back bit for bit.
    """
    from mixer_mlx.convert import ExportOptions
    from mixer_mlx.convert import export as run
    from mixer_mlx.convert.export.formats import check_options

    chosen = ExportOptions(
        input=input,
        weights=weights,
        softmax=softmax,
        compute_precision=compute_precision,
        minimum_target=minimum_target,
        runtime=runtime,
    )
    try:
        check_options(format, chosen)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    with output.fetching(quiet=quiet) as listener:
        done = run(model, out, format=format, options=chosen, force=force, listener=listener)
    if quiet:
        return
    for note in done.notes:
        output.say(f"Note: {note}.")
    output.say_written(out, done.info.config)
