"""`mixer convert`: published or foreign weights to a model folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.choices import DType, HiddenAct, Interpolation, QuantizationMode, ResizeMode
from mixer_mlx.errors import ConfigError

from .terminal import options, output

if TYPE_CHECKING:
    from mixer_mlx.quantization import Quantization


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
    quantize: Annotated[
        bool,
        typer.Option(
            "--quantize",
            help="Store the matrices over channels in 4 or 8 bits, and the rest in float16.",
        ),
    ] = False,
    q_bits: Annotated[
        int | None,
        typer.Option(
            "--q-bits", help="Bits per weight, 4 or 8. Default: the mode's; affine: 4.", metavar="N"
        ),
    ] = None,
    q_group_size: Annotated[
        int | None,
        typer.Option(
            "--q-group-size",
            help="Weights that share a scale: 32, 64 (default) or 128; 32 in other modes.",
            metavar="N",
        ),
    ] = None,
    q_mode: Annotated[
        QuantizationMode,
        typer.Option(
            "--q-mode",
            help="affine: integers; mxfp4, mxfp8: small floating-point numbers (Microscaling).",
        ),
    ] = "affine",
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
    quantization = _quantization(quantize, q_bits, q_group_size, q_mode)
    from mixer_mlx.convert import Settings, weights_bytes
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
            quantization=quantization,
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
    if quantization:
        before, after = done.info.source["quantized_from_mib"], (weights_bytes(out) or 0) / 2**20
        output.say(f"Quantised to {quantization}: {before} MiB before, {after:.2f} after.")
    if done.info.config.num_classes and not done.info.labels:
        output.say(
            "The names of its classes are unknown; convert it again with --labels FILE --force to "
            "add them."
        )


def _quantization(
    wanted: bool, bits: int | None, group_size: int | None, mode: QuantizationMode
) -> "Quantization | None":
    if not wanted:
        if bits or group_size or mode != "affine":
            raise typer.BadParameter(
                "--q-bits, --q-group-size and --q-mode need --quantize.", param_hint="--quantize"
            )
        return None
    from mixer_mlx.quantization import Quantization

    try:
        return Quantization(bits, group_size, mode)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--quantize") from error
