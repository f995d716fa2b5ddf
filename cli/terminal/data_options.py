"""Options for labelled images, and reading what they name."""

from typing import TYPE_CHECKING, Annotated

import typer

from . import output

if TYPE_CHECKING:
    from mixer_mlx.data.read import Columns, Dataset

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
) -> "tuple[Dataset, Dataset]":
    """Training and validation images."""
    from mixer_mlx.convert.fetch.datasets import read_splits as read

    with output.fetching(quiet=quiet) as listener:
        return read(
            data,
            val_fraction=val_fraction,
            seed=seed,
            train_split=train_split,
            val_split=val_split,
            columns=_columns(image, label),
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
