"""`mixer convert`: weights from elsewhere into a native model folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import options, output

if TYPE_CHECKING:
    from mixer_mlx.convert import Settings


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Official JAX weights (.npz), timm's (.safetensors, .pth), a folder as timm's "
            "repositories are, a model folder; or where such a thing is: a name that `mixer "
            "models` lists, user/repo, hf://user/repo[/file][@revision], a URL.",
            metavar="SOURCE",
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The model folder to write.", metavar="OUT")],
    dtype: Annotated[
        options.DType | None,
        typer.Option("--dtype", help="Number format to store. Default: that of SOURCE."),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option("--image-size", help="Height x width of the images.", metavar="HxW"),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="Names of the classes: a text file, one in a line, or .json.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    mean: Annotated[
        str | None, typer.Option("--mean", help="Of pixels in 0..1, as 0.5 or 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[str | None, typer.Option("--std", help="Likewise.")] = None,
    crop: Annotated[
        float | None,
        typer.Option("--crop", min=0.01, max=1, help="Share of the resized image that is seen."),
    ] = None,
    resize_mode: Annotated[
        options.ResizeMode | None,
        typer.Option("--resize-mode", help="Resize the shorter side, or squash both."),
    ] = None,
    interpolation: Annotated[
        options.Interpolation | None, typer.Option("--interpolation", help="Filter of the resize.")
    ] = None,
    activation: Annotated[
        options.Activation | None,
        typer.Option("--activation", help="GELU in its erf form (timm) or tanh form (Flax)."),
    ] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model folder that every other command takes as --model.

    Every tensor is used exactly once, or nothing is written. What SOURCE leaves open is assumed
    and said; options say otherwise.
    """
    preprocess: dict[str, object] = {
        "mean": options.parse_numbers(mean),
        "std": options.parse_numbers(std),
        "crop_pct": crop,
        "resize_mode": resize_mode and resize_mode.value,
        "interpolation": interpolation and interpolation.value,
    }
    size = options.parse_image_size(image_size) if image_size else None
    from mixer_mlx.convert import convert as run

    settings = _settings(size, labels, preprocess, activation and activation.value)
    with output.fetching(quiet=quiet) as listener:
        done = run(source, out, dtype=dtype, settings=settings, force=force, listener=listener)
    if quiet:
        return
    for sentence in done.assumed:
        output.say(f"Assumed: {sentence}.")
    output.say_written(out, done.info.config)


def _settings(
    image_size: tuple[int, int] | None,
    labels: Path | None,
    preprocess: dict[str, object],
    activation: str | None,
) -> "Settings":
    from mixer_mlx.convert import Settings
    from mixer_mlx.labels import read_file

    return Settings(
        image_size=image_size,
        hidden_act=activation,
        labels=read_file(labels) if labels else (),
        preprocess={key: value for key, value in preprocess.items() if value is not None},
    )
