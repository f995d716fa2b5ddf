"""`mixer convert`: published or foreign weights to a model folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.choices import DType, HiddenAct, Interpolation, ResizeMode

from .terminal import options, output

if TYPE_CHECKING:
    pass


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Official JAX weights (.npz), timm weights (.safetensors, .pth), a timm repository"
            " or a model folder: as a path, a URL, a name that `mixer models` lists, user/repo on "
            "the Hub, or hf://user/repo[@revision][/file].",
            metavar="SOURCE",
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Model folder to write.", metavar="OUT")],
    dtype: Annotated[
        DType | None,
        typer.Option("--dtype", help="Number format to store. Default: as in SOURCE."),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size", help="Image size of the model, height x width.", metavar="HxW"
        ),
    ] = None,
    in_channels: Annotated[
        int | None,
        typer.Option(
            "--in-channels",
            min=1,
            max=1024,
            help="Adapt a model for colour images to N channels, e.g. 1 for grey images.",
            metavar="N",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="Class names: a text file with one per line, or JSON.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option("--mean", help="Mean per channel (0-1), e.g. 0.5 or 0.485,0.456,0.406."),
    ] = None,
    std: Annotated[
        str | None, typer.Option("--std", help="Standard deviation per channel (0-1).")
    ] = None,
    crop: Annotated[
        float | None,
        typer.Option(
            "--crop",
            min=0.01,
            max=1,
            help="Fraction of the resized image that the centre crop keeps.",
        ),
    ] = None,
    resize_mode: Annotated[
        ResizeMode | None,
        typer.Option("--resize-mode", help="Resize the shorter side, or squash both sides."),
    ] = None,
    interpolation: Annotated[
        Interpolation | None, typer.Option("--interpolation", help="Resize filter.")
    ] = None,
    activation: Annotated[
        HiddenAct | None,
        typer.Option(
            "--activation",
            help="gelu (erf, as in timm), gelu_tanh (as in Flax) or silu (as in gMixer).",
        ),
    ] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Convert published weights to a model folder, which every command takes as -m.

    Every tensor is used exactly once, or nothing is written. What SOURCE doesn't say
    (preprocessing, image size, activation) is assumed and reported, unless you give it.
    """
    preprocess = {
        "mean": options.parse_numbers(mean),
        "std": options.parse_numbers(std),
        "crop_pct": crop,
        "resize_mode": resize_mode,
        "interpolation": interpolation,
    }
    size = options.parse_image_size(image_size) if image_size else None
    from mixer_mlx.convert import Settings
    from mixer_mlx.convert import convert as run
    from mixer_mlx.labels import read_file

    settings = Settings(
        image_size=size,
        hidden_act=activation,
        labels=read_file(labels) if labels else (),
        preprocess={key: value for key, value in preprocess.items() if value is not None},
    )
    with output.fetching(quiet=quiet) as listener:
        done = run(
            source,
            out,
            dtype=dtype,
            settings=settings,
            in_channels=in_channels,
            force=force,
            listener=listener,
        )
    if quiet:
        return
    for sentence in done.assumed:
        output.say(f"Assumed: {sentence}.")
    output.say_written(out, done.info.config)
    if done.info.config.num_classes and not done.info.labels:
        output.say(
            "The names of its classes are unknown; convert it again with --labels FILE --force to "
            "add them."
        )
