"""Pictures with classes, as folders: root/<class>/<picture>, or root/{train,val}/<class>/..."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError
from mixer_mlx.pictures import find_pictures


@dataclass(frozen=True)
class Dataset:
    """`paths[i]` shows class `classes[labels[i]]`; labels are int32. No picture is open."""

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int] | NDArray[np.intp]) -> "Dataset":
        """Some of the pictures, with all classes."""
        return Dataset(self.classes, tuple(self.paths[i] for i in indices), self.labels[indices])

    def counts(self) -> dict[str, int]:
        """Class -> how many pictures it has."""
        numbers = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, numbers.tolist(), strict=True))


def read_folder(root: str | os.PathLike[str]) -> Dataset:
    """The pictures in root/<class>/ and below; classes and pictures sorted by name.

    Raises ConfigError for a folder without classes, and for classes without pictures.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give one that holds a folder for each class.")
    names = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise ConfigError(
            f"{folder} holds no folders; put the pictures of each class into a folder of its name."
        )
    paths, labels = [], []
    for label, name in enumerate(names):
        found = [Path(str(picture)) for picture in find_pictures([folder / name])]
        if not found:
            raise ConfigError(f"{folder / name} holds no pictures; add some, or remove it.")
        paths += found
        labels += [label] * len(found)
    return Dataset(tuple(names), tuple(paths), np.array(labels, np.int32))


def read_splits(
    root: str | os.PathLike[str], *, val_fraction: float = 0.2, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Training and validation pictures: root/train and root/val, or a split of root/<class>.

    Raises ConfigError for fewer than two classes, and for classes that differ between the two.
    """
    train_folder, val_folder = Path(root) / "train", Path(root) / "val"
    if train_folder.is_dir() and val_folder.is_dir():
        train, val = read_folder(train_folder), read_folder(val_folder)
        if train.classes != val.classes:
            name = sorted(set(train.classes) ^ set(val.classes))[0]
            raise ConfigError(
                f"The classes of {train_folder} and {val_folder} differ ({name} is in one alone); "
                "give both the same folders."
            )
    else:
        train, val = split(read_folder(root), val_fraction, seed)
    if len(train.classes) < 2:
        raise ConfigError(f"{root} has one class, {train.classes[0]}; it takes two to tell apart.")
    return train, val


def split(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Take a share of each class away, drawn by `seed`: the rest, and what was taken.

    Every class keeps at least one picture, and gives one as soon as it has two. Raises ConfigError
    for a fraction outside 0 to 1.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"The validation fraction is {fraction}; it must be between 0 and 1.")
    taken = np.zeros(len(dataset), bool)
    for label in range(len(dataset.classes)):
        members = np.flatnonzero(dataset.labels == label)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        rng = np.random.default_rng([seed, label])
        taken[rng.permutation(members)[:count]] = True
    return dataset.take(np.flatnonzero(~taken)), dataset.take(np.flatnonzero(taken))


def match_classes(classes: Sequence[str], labels: Sequence[str]) -> list[int]:
    """For each class of a dataset the index of the model's label of that name.

    A folder may be called like the label, like one of its synonyms ("tench" for "tench, Tinca
    tinca"), or by the label's number. Raises ConfigError that names the first without a match.
    """
    known: dict[str, int] = {}
    for index, label in reversed(list(enumerate(labels))):
        known.update(dict.fromkeys([*label.split(", "), str(index)], index))
    known.update((label, index) for index, label in enumerate(labels))
    missing = [name for name in classes if name not in known]
    if missing:
        raise ConfigError(
            f"The model knows no class {missing[0]!r} ({len(missing)} of {len(classes)} folders "
            "match none of its labels); name the folders as `mixer info` shows the labels."
        )
    return [known[name] for name in classes]
