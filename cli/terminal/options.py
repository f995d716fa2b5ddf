"""Options that mean the same in every command, and options as the fields of a dataclass."""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from mixer_mlx.choices import Device, DType, Format, Variant

from . import output

if TYPE_CHECKING:
    from mixer_mlx.data.dataset import Hold
    from mixer_mlx.data.read import Columns, Dataset

MODEL_HELP = (
    "A name that `mixer models` lists, a model folder, a weights file, user/repo on the Hub, "
    "hf://user/repo[@revision][/file], or a URL."
)

VARIANTS = ", ".join(get_args(Variant))

ModelOption = Annotated[
    str,
    typer.Option("-m", "--model", envvar="MIXER_MLX_MODEL", help=MODEL_HELP, metavar="MODEL"),
]
ModelArgument = Annotated[
    str, typer.Argument(envvar="MIXER_MLX_MODEL", help=MODEL_HELP, metavar="MODEL")
]
FormatOption = Annotated[
    Format,
    typer.Option("--format", help="Output format; json is one object per line."),
]
DTypeOption = Annotated[
    DType | None,
    typer.Option(
        "--dtype", help="Number format to compute in. Default: float16 on a GPU, else float32."
    ),
]
DeviceOption = Annotated[
    Device | None,
    typer.Option("--device", help="Device to compute on. Default: the GPU if there is one."),
]
BatchSize = Annotated[int, typer.Option("-b", "--batch-size", min=1, help="Batch size.")]


def _use_workers(count: int | None) -> int | None:
    from mixer_mlx.runtime.threads import use_workers

    use_workers(count)
    return count


Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Number of threads that decode images. Default: one per core.",
        callback=_use_workers,
        metavar="N",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing output.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Hide progress and messages.")]
Out = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="Output file. Default: the terminal.", dir_okay=False),
]


ImagesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Image files, folders, .zip and .tar archives, quoted patterns, URLs; "
        "- reads a list of paths from stdin.",
        metavar="IMAGE...",
    ),
]
Null = Annotated[bool, typer.Option("-0", "--null", help="Paths on stdin are NUL-separated.")]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="Preprocess as reference evaluations do: decode large JPEGs in full, and ignore "
        "EXIF orientation.",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Resume an interrupted run with the same -o.")
]


def parse_numbers(text: str | None) -> tuple[float, ...] | None:
    """ "0.5" or "0.485,0.456,0.406" -> three numbers, one per channel."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"Expected a number, or three like 0.485,0.456,0.406, not {text!r}."
        ) from error
    return numbers * 3 if len(numbers) == 1 else numbers


def parse_image_size(text: str) -> tuple[int, int]:
    """ "224" or "224x320" (height x width) -> (H, W)."""
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(re.fullmatch("[0-9]{1,5}", side) for side in sides):
        raise typer.BadParameter(
            f"Expected a size, e.g. 224 or 224x320 (height x width), not {text!r}."
        )
    return int(sides[0]), int(sides[-1])


Command = Callable[..., None]


def with_options(shared: type[Any], **defaults: object) -> Callable[[Command], Command]:
    """Give a command the fields of a dataclass as options, and pass it as the first argument.

    `defaults` replace those of the fields. In the help, the first two fields come before the
    command's own options, and the others after them.
    """

    def decorate(command: Command) -> Command:
        fields = [_parameter(field, defaults) for field in dataclasses.fields(shared)]
        own = list(inspect.signature(command).parameters.values())[1:]
        own = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own]
        signature = inspect.Signature([*fields[:2], *own, *fields[2:]])

        @functools.wraps(command)
        def run(**values: object) -> None:
            asked = {field.name: values.pop(field.name) for field in fields}
            command(shared(**asked), **values)

        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return run

    return decorate


def _parameter(
    field: "dataclasses.Field[object]", defaults: dict[str, object]
) -> inspect.Parameter:
    default = defaults.get(field.name, field.default)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is dataclasses.MISSING else default,
        annotation=field.type,
    )


DataArgument = Annotated[
    str,
    typer.Argument(
        help="Labelled images: a folder, .zip or .tar with one folder per class, or with train "
        "and val folders of that kind; Parquet files; a .csv list; or "
        "hf://datasets/user/name[@revision][/folder].",
        metavar="DATA",
    ),
]
TrainSplit = Annotated[
    str | None,
    typer.Option("--train-split", help="Split of DATA to train on.", metavar="NAME"),
]
ValSplit = Annotated[
    str | None,
    typer.Option("--val-split", help="Split of DATA to validate on.", metavar="NAME"),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split", help="Split of DATA. Default: val, else test, else all.", metavar="NAME"
    ),
]
ImageColumn = Annotated[
    str | None,
    typer.Option(
        "--image-column", help="Column with the images (Parquet) or their paths (a list)."
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option("--label-column", help="Column with the classes, in Parquet or a list."),
]


def read_splits(
    data: str,
    train_split: str | None,
    val_split: str | None,
    image: str | None,
    label: str | None,
    *,
    val_fraction: float | None,
    seed: int,
    quiet: bool,
    hold: "Hold | None" = None,
) -> "tuple[Dataset, Dataset]":
    """Training and validation images; `hold` replaces `held_out`."""
    from mixer_mlx.convert.fetch.datasets import read_splits as read
    from mixer_mlx.data.dataset import held_out

    with output.fetching(quiet=quiet) as listener:
        return read(
            data,
            val_fraction=val_fraction,
            seed=seed,
            train_split=train_split,
            val_split=val_split,
            columns=_columns(image, label),
            hold=hold or held_out,
            listener=listener,
            say=listener.message,
        )


def read_split(
    data: str, split: str | None, image: str | None, label: str | None, *, quiet: bool
) -> "tuple[Dataset, str]":
    """Images to evaluate on, and the name of their split, or ""."""
    from mixer_mlx.convert.fetch.datasets import read_split as read

    with output.fetching(quiet=quiet) as listener:
        columns = _columns(image, label)
        return read(data, split, columns=columns, listener=listener, say=listener.message)


def _columns(image: str | None, label: str | None) -> "Columns":
    from mixer_mlx.data.read import Columns

    return Columns(image, label)
