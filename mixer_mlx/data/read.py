"""Read labelled images from folders, archives, Parquet files, and lists.

DATA/<class>/<images>, DATA/<split>/<class>/<images>   `folders`
the same in a .zip or .tar file                        `folders`
a Parquet file, or a folder of them                    `parquet`
a .csv or .tsv file, or a folder with a metadata.csv   `table`
"""

import os
from collections.abc import Collection
from functools import partial
from pathlib import Path

import numpy as np

from mixer_mlx.errors import ConfigError
from mixer_mlx.images.archives import is_archive
from mixer_mlx.images.find import find_images
from mixer_mlx.labels import canonical

from . import folders, parquet, table
from .columns import Columns
from .dataset import (
    UNSPLIT,
    Dataset,
    Entry,
    hold_out,
    match_classes,
    relabelled,
    split_for_evaluation,
    splits_for_training,
)
from .folders import DiskTree, Splits

__all__ = [
    "Columns",
    "Data",
    "Dataset",
    "Entry",
    "find_splits",
    "hold_out",
    "match_classes",
    "read_split",
    "read_splits",
]

VAL_FRACTION = 0.2
"""Held out of each class if a dataset has no validation split."""

Data = str | os.PathLike[str]


def read_split(
    root: Data, split: str | None = None, *, columns: Columns | None = None
) -> tuple[Dataset, str]:
    """Images to evaluate on, and the name of their split, or "" for a dataset without splits.

    Without `split`, the validation split, else the test split, else the only one. Raises
    ConfigError.
    """
    split = canonical(split) if split else None
    splits = find_splits(root, columns or Columns(), {split} if split else ())
    name = split_for_evaluation(splits, split, str(root))
    return splits[name](), name


def read_splits(
    root: Data,
    *,
    val_fraction: float | None = None,
    seed: int = 0,
    train_split: str | None = None,
    val_split: str | None = None,
    columns: Columns | None = None,
) -> tuple[Dataset, Dataset]:
    """Training and validation images, both with the classes of the former.

    They come from the dataset's splits of these names (or synonyms, as `validation`), or from
    `train_split` and `val_split`. Without splits, or with a training split alone, a random fraction
    of each class, `val_fraction` (default VAL_FRACTION), is held out for validation; an explicit
    `val_fraction` does that in any case. Raises ConfigError if there are other splits but none for
    validation, for fewer than two classes, and for validation images of other classes.
    """
    train_split, val_split = (canonical(name or "") or None for name in (train_split, val_split))
    wanted = [name for name in (train_split, val_split) if name]
    splits = find_splits(root, columns or Columns(), wanted)
    first, second = splits_for_training(splits, train_split, val_split, val_fraction, str(root))
    train = splits[first]()
    if second is None:
        fraction = VAL_FRACTION if val_fraction is None else val_fraction
        train, val = hold_out(train, fraction, seed)
    else:
        what = f"The images of split {second} in {root}"
        val = relabelled(splits[second](), train.classes, what)
    if len(present := np.unique(train.labels)) < 2:
        raise ConfigError(
            f"{root} has only the class {train.classes[present[0]]}; add a second one."
        )
    if not len(val):
        raise ConfigError(f"{root} leaves no images for validation; give a class two or more.")
    return train, val


def find_splits(root: Data, columns: Columns, wanted: Collection[str]) -> Splits:
    """The splits of a dataset; folders named in `wanted` count as splits. Reads no images.

    Raises ConfigError if it isn't a dataset.
    """
    path = Path(root)
    suffix = path.suffix.lower()
    if path.is_dir():
        return _in_folder(path, columns, wanted)
    if is_archive(str(path)):
        return folders.find(folders.open_archive(path), wanted)
    if not path.is_file():
        raise ConfigError(f"{path} doesn't exist; check the path.")
    if suffix == ".parquet":
        return {UNSPLIT: partial(parquet.read, [path], columns)}
    if suffix in (".csv", ".tsv"):
        return table.find(path, columns)
    raise ConfigError(
        f"{path} isn't a dataset; expected one folder per class (DATA/<class>/*.jpg), as .zip "
        "or .tar, a .parquet file, or a .csv list."
    )


def _in_folder(path: Path, columns: Columns, wanted: Collection[str]) -> Splits:
    if labelled := table.find_metadata(path, columns):
        return labelled
    no_images = next(find_images([path]), None) is None
    files = parquet.find_files(path, deep=no_images)
    # Other Parquet files, such as those `mixer predict` writes, may lie beside images.
    if files and (no_images or UNSPLIT not in files):
        return {name: partial(parquet.read, some, columns) for name, some in files.items()}
    return folders.find(DiskTree(path), wanted)
