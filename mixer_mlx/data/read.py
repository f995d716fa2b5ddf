"""Images with classes, wherever they lie: folders, archives, Parquet files, lists.

DATA/<class>/<images>, DATA/<part>/<class>/<images>      `folders`
the same in a .zip or .tar file                              `folders`
a Parquet file, or a folder of them                          `parquet`
a .csv or .tsv file, or a folder with a metadata.csv         `table`
"""

import os
from collections.abc import Collection
from functools import partial
from pathlib import Path

import numpy as np

from mixer_mlx.errors import ConfigError
from mixer_mlx.images.archives import is_archive
from mixer_mlx.images.find import find_images

from . import folders, parquet, table
from .columns import Columns
from .dataset import (
    WHOLE,
    Dataset,
    Entry,
    match_classes,
    part_for_evaluation,
    parts_for_training,
    relabelled,
    split,
)
from .folders import DiskTree, Parts

__all__ = [
    "Columns",
    "Data",
    "Dataset",
    "Entry",
    "find_parts",
    "match_classes",
    "read_folder",
    "read_split",
    "read_splits",
    "split",
]

VAL_FRACTION = 0.2
"""Held back of each class where a dataset has no part for validation."""

Data = str | os.PathLike[str]


def read_folder(root: Data) -> Dataset:
    """The images in root/<class>/ and below; classes and images sorted by name.

    Raises ConfigError for a folder without classes, and for classes without images.
    """
    if not Path(root).is_dir():
        raise ConfigError(f"{root} is no folder; give one that holds a folder for each class.")
    return folders.read_classes(DiskTree(Path(root)))


def read_split(
    root: Data, part: str | None = None, *, columns: Columns | None = None
) -> tuple[Dataset, str]:
    """Images to evaluate on, and the name of the part of the dataset that they are, or "".

    Without `part` it is the one for validation, else that for tests, else the only one. Raises
    ConfigError.
    """
    parts = find_parts(root, columns or Columns(), {part} if part else ())
    name = part_for_evaluation(parts, part, str(root))
    return parts[name](), name


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

    They are the dataset's parts for that (`train`; `val` or `validation`), or those that are named.
    A dataset without parts, or without one for validation, is divided: a share of each class,
    `val_fraction` (default VAL_FRACTION), is held back, drawn by `seed`; a `val_fraction` that is
    given does that in any case. Raises ConfigError for a dataset that has parts, but none for
    validation; for fewer than two classes, and for validation images of other classes.
    """
    wanted = [name for name in (train_split, val_split) if name]
    parts = find_parts(root, columns or Columns(), wanted)
    first, second = parts_for_training(parts, train_split, val_split, val_fraction, str(root))
    train = parts[first]()
    if second is None:
        fraction = VAL_FRACTION if val_fraction is None else val_fraction
        train, val = split(train, fraction, seed)
    else:
        what = f"The images of part {second} in {root}"
        val = relabelled(parts[second](), train.classes, what)
    if len(present := np.unique(train.labels)) < 2:
        raise ConfigError(
            f"{root} has one class, {train.classes[present[0]]}; it takes two to tell apart."
        )
    if not len(val):
        raise ConfigError(f"{root} leaves no images to validate on; give every class two.")
    return train, val


def find_parts(root: Data, columns: Columns, wanted: Collection[str]) -> Parts:
    """What a dataset consists of, by the kind of place; `wanted` are names of parts.

    Nothing is read but names. Raises ConfigError for what is no dataset.
    """
    path = Path(root)
    suffix = path.suffix.lower()
    if path.is_dir():
        return _in_folder(path, columns, wanted)
    if is_archive(str(path)):
        return folders.find(folders.open_archive(path), wanted)
    if not path.is_file():
        raise ConfigError(f"{path} is no folder and no file; check the path.")
    if suffix == ".parquet":
        return {WHOLE: partial(parquet.read, [path], columns)}
    if suffix in (".csv", ".tsv"):
        return table.find(path, columns)
    raise ConfigError(
        f"{path} is no dataset; give a folder that holds a folder of images for each class, the "
        "same as .zip or .tar, a .parquet file, or a .csv list."
    )


def _in_folder(path: Path, columns: Columns, wanted: Collection[str]) -> Parts:
    if labelled := table.find_metadata(path, columns):
        return labelled
    no_images = next(find_images([path]), None) is None
    files = parquet.find_files(path, deep=no_images)
    # A Parquet file of something else, as `mixer predict` writes it, may lie beside images.
    if files and (no_images or WHOLE not in files):
        return {name: partial(parquet.read, some, columns) for name, some in files.items()}
    return folders.find(DiskTree(path), wanted)
