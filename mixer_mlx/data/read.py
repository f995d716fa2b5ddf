"""Read labelled images from folders, archives, Parquet files, and lists.

DATA/<class>/<images>, DATA/<split>/<class>/<images>   `folders`
a Parquet file, or a folder of them                    `parquet`
a .csv or .tsv file, or a folder with a metadata.csv   `table`
ImageNet's validation images in one folder             `imagenet`

Folders may be packed as a .zip or .tar file.
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

from . import folders, imagenet, parquet, table
from .columns import Columns
from .dataset import (
    UNSPLIT,
    Dataset,
    Entry,
    Hold,
    held_out,
    hold_out,
    match_classes,
    parted,
    relabelled,
    split_for_evaluation,
    splits_for_training,
)
from .folders import DiskTree, Splits
from .notes import Notes, Say, listed

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
    root: Data,
    split: str | None = None,
    *,
    columns: Columns | None = None,
    say: Say = lambda _: None,
) -> tuple[Dataset, str]:
    """Images to evaluate on, and the name of their split, or "" for a dataset without splits.

    Without `split`, the validation split, else the test split, else the only one. `say` gets what
    was left out. Raises ConfigError.
    """
    split = canonical(split) if split else None
    notes = Notes()
    splits = find_splits(root, columns or Columns(), {split} if split else (), notes)
    name = split_for_evaluation(splits, split, str(root))
    dataset = splits[name]()
    for sentence in notes.left_out_sentences(str(root)):
        say(sentence)
    return dataset, name


def _classes(dataset: Dataset) -> str:
    return f"{len(dataset.classes):,} classes ({listed(dataset.classes)})"


def _unused(splits: Splits, *used: str | None) -> str:
    unused = sorted(set(splits) - set(used))
    return f"; not used: {', '.join(unused)}" if unused else ""


def read_splits(
    root: Data,
    *,
    val_fraction: float | None = None,
    seed: int = 0,
    train_split: str | None = None,
    val_split: str | None = None,
    columns: Columns | None = None,
    hold: Hold = held_out,
    say: Say = lambda _: None,
) -> tuple[Dataset, Dataset]:
    """Training and validation images, both with the classes of the former.

    They come from the dataset's splits of these names (or synonyms, as `validation`), or from
    `train_split` and `val_split`. Without splits, or with a training split alone, a random fraction
    of each class, `val_fraction` (default VAL_FRACTION), is held out for validation; an explicit
    `val_fraction` does that in any case; `hold` chooses the images. `say` gets how the dataset was
    read, and what was left out. Raises ConfigError if there are other splits but none for
    validation, for fewer than two classes, and for validation images of other classes.
    """
    train_split, val_split = (canonical(name or "") or None for name in (train_split, val_split))
    wanted = [name for name in (train_split, val_split) if name]
    notes = Notes()
    splits = find_splits(root, columns or Columns(), wanted, notes)
    first, second = splits_for_training(splits, train_split, val_split, val_fraction, str(root))
    train = splits[first]()
    if second is None:
        fraction = VAL_FRACTION if val_fraction is None else val_fraction
        held = f"{fraction:.0%} of each class held out for validation"
        use = f"{f'training on {first}' if first else _classes(train)}, {held}"
        train, val = parted(train, hold(train, fraction, seed))
    else:
        what = f"The images of split {second} in {root}"
        val = relabelled(splits[second](), train.classes, what)
        use = f"training on {first}, validating on {second}"
    for sentence in notes.sentences(str(root), use + _unused(splits, first, second)):
        say(sentence)
    if len(present := np.unique(train.labels)) < 2:
        raise ConfigError(
            f"{root} has only the class {train.classes[present[0]]}; add a second one."
        )
    if not len(val):
        raise ConfigError(
            f"{root} leaves no images for validation; give a class two or more that differ."
        )
    return train, val


def find_splits(
    root: Data, columns: Columns, wanted: Collection[str], notes: Notes | None = None
) -> Splits:
    """The splits of a dataset; folders named in `wanted` count as splits. Reads no images.

    `notes` are filled now, and while the splits are read. Raises ConfigError if it isn't a dataset.
    """
    notes = Notes() if notes is None else notes
    path = Path(root)
    suffix = path.suffix.lower()
    if path.is_dir():
        return _in_folder(path, columns, wanted, notes)
    if is_archive(str(path)):
        archive = folders.open_archive(path, notes.skipped)
        labelled = table.find_metadata(archive, columns, notes)
        return labelled or folders.find(archive, wanted, notes)
    if not path.is_file():
        raise ConfigError(f"{path} doesn't exist; check the path.")
    if suffix == ".parquet":
        notes.form = "Parquet"
        return {UNSPLIT: partial(parquet.read, [path], columns)}
    if suffix in table.SUFFIXES:
        return table.find(path, columns, notes)
    raise ConfigError(
        f"{path} isn't a dataset; expected one folder per class (DATA/<class>/*.jpg), as .zip "
        "or .tar, a .parquet file, or a .csv list."
    )


def _in_folder(path: Path, columns: Columns, wanted: Collection[str], notes: Notes) -> Splits:
    tree = DiskTree(path, notes.skipped)
    if labelled := table.find_metadata(tree, columns, notes):
        return labelled
    no_images = next(find_images([path]), None) is None
    files = parquet.find_files(path, deep=no_images)
    # Other Parquet files, such as those `mixer predict` writes, may lie beside images.
    if files and (no_images or UNSPLIT not in files):
        notes.form = "Parquet"
        return {name: partial(parquet.read, some, columns) for name, some in files.items()}
    if not tree.folders() and not no_images and (truth := imagenet.find_truth(path)):
        notes.form = f"images with labels in {truth}"
        return {UNSPLIT: lambda: imagenet.read_flat(path, tree.image_names(), truth)}
    return folders.find(tree, wanted, notes)
