"""Pictures with classes, and how they are divided and compared. No picture is open here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError
from mixer_mlx.images.archives import Member

Entry: TypeAlias = Path | Member
"""A picture as `decode` takes it; `str` of it is what to print."""


@dataclass(frozen=True)
class Dataset:
    """`paths[i]` shows class `classes[labels[i]]`; labels are int32. No picture is open."""

    classes: tuple[str, ...]
    paths: tuple[Entry, ...]
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

    def present(self) -> list[str]:
        """The classes that have a picture."""
        return [name for name, count in self.counts().items() if count]


def by_name(paths: Sequence[Entry], names: Sequence[str]) -> Dataset:
    """A dataset from the name of each picture's class; classes sorted, as numbers if they are."""
    are_numbers = all(name.isascii() and name.isdigit() for name in names)
    classes = sorted(set(names), key=(lambda name: (int(name), name)) if are_numbers else None)
    index = {name: label for label, name in enumerate(classes)}
    return Dataset(tuple(classes), tuple(paths), np.array([index[n] for n in names], np.int32))


def relabelled(dataset: Dataset, classes: tuple[str, ...], what: str) -> Dataset:
    """The same pictures, their labels counted in `classes`; it may lack some of them.

    Raises ConfigError, which calls the dataset `what`, for a picture of another class.
    """
    if dataset.classes == classes:
        return dataset
    index = {name: label for label, name in enumerate(classes)}
    if unknown := [name for name in dataset.present() if name not in index]:
        raise ConfigError(
            f"{what} have a class that the training pictures lack, {unknown[0]}; give both the "
            "same classes."
        )
    table = np.array([index.get(name, -1) for name in dataset.classes], np.int32)
    return Dataset(classes, dataset.paths, table[dataset.labels])


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
        count = max(0, min(max(1, round(fraction * len(members))), len(members) - 1))
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
            f"The model knows no class {missing[0]!r} ({len(missing)} of {len(classes)} classes "
            "match none of its labels); name them as `mixer info` shows the labels."
        )
    return [known[name] for name in classes]
