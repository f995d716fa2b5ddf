"""Options that say where labelled images are, and the reading of them."""

from typing import TYPE_CHECKING, Annotated

import typer

from . import output

if TYPE_CHECKING:
    from mixer_mlx.data.read import Columns, Dataset

Data = Annotated[
    str,
    typer.Argument(
        help="A folder, .zip or .tar that holds a folder of images for each class, or train and "
        "val with such folders; a .parquet file or a folder of them; a .csv list; or "
        "hf://datasets/user/name.",
        metavar="DATA",
    ),
]
TrainSplit = Annotated[
    str | None,
    typer.Option("--train-split", help="The part of DATA to train on.", metavar="NAME"),
]
ValSplit = Annotated[
    str | None,
    typer.Option("--val-split", help="The part of DATA to validate on.", metavar="NAME"),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split", help="The part of DATA. Default: val, else test, else all.", metavar="NAME"
    ),
]
ImageColumn = Annotated[
    str | None,
    typer.Option("--image-column", help="Of Parquet: the images. Of a list: their paths."),
]
LabelColumn = Annotated[
    str | None, typer.Option("--label-column", help="Of Parquet or a list: the classes.")
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
    """Images to train on, and to validate on."""
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
        )


def read_split(
    data: str, split: str | None, image: str | None, label: str | None, *, quiet: bool
) -> "tuple[Dataset, str]":
    """Images to evaluate on, and the part of DATA that they are, or ""."""
    from mixer_mlx.convert.fetch.datasets import read_split as read

    with output.fetching(quiet=quiet) as listener:
        return read(data, split, columns=_columns(image, label), listener=listener)


def _columns(image: str | None, label: str | None) -> "Columns":
    from mixer_mlx.data.read import Columns

    return Columns(image, label)
