"""Images with classes, and how they are divided and compared. No image is open here."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError
from mixer_mlx.images.archives import StoredImage

Entry: TypeAlias = Path | StoredImage
"""An image as `decode` takes it; `str` of it is what to print."""


@dataclass(frozen=True)
class Dataset:
    """`paths[i]` shows class `classes[labels[i]]`; labels are int32. No image is open."""

    classes: tuple[str, ...]
    paths: tuple[Entry, ...]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int] | NDArray[np.intp]) -> "Dataset":
        """Some of the images, with all classes."""
        return Dataset(self.classes, tuple(self.paths[i] for i in indices), self.labels[indices])

    def counts(self) -> dict[str, int]:
        """Class -> how many images it has."""
        numbers = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, numbers.tolist(), strict=True))

    def present(self) -> list[str]:
        """The classes that have an image."""
        return [name for name, count in self.counts().items() if count]


def by_name(paths: Sequence[Entry], names: Sequence[str]) -> Dataset:
    """A dataset from the name of each image's class; classes sorted, as numbers if they are."""
    are_numbers = all(name.isascii() and name.isdigit() for name in names)
    classes = sorted(set(names), key=(lambda name: (int(name), name)) if are_numbers else None)
    index = {name: label for label, name in enumerate(classes)}
    return Dataset(tuple(classes), tuple(paths), np.array([index[n] for n in names], np.int32))


def relabelled(dataset: Dataset, classes: tuple[str, ...], what: str) -> Dataset:
    """The same images, their labels counted in `classes`; it may lack some of them.

    Raises ConfigError, which calls the dataset `what`, for an image of another class.
    """
    if dataset.classes == classes:
        return dataset
    index = {name: label for label, name in enumerate(classes)}
    if unknown := [name for name in dataset.present() if name not in index]:
        raise ConfigError(
            f"{what} have a class that the training images lack, {unknown[0]}; give both the "
            "same classes."
        )
    table = np.array([index.get(name, -1) for name in dataset.classes], np.int32)
    return Dataset(classes, dataset.paths, table[dataset.labels])


def split(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Take a share of each class away, drawn by `seed`: the rest, and what was taken.

    Every class keeps at least one image, and gives one as soon as it has two. Raises ConfigError
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


WHOLE = ""
"""The name of the only part of a dataset without parts."""
TRAIN = ("train", "training")
VAL = ("val", "valid", "validation", "dev")
TEST = ("test", "testing")
KNOWN = {*TRAIN, *VAL, *TEST}


def parts_for_training(
    parts: Collection[str], train: str | None, val: str | None, fraction: float | None, what: str
) -> tuple[str, str | None]:
    """The parts to train and to validate on; None: a share of the first is to be held back.

    `train` and `val` are names that the user gave; so is `fraction`, which wins over a part that
    could be for validation. Raises ConfigError, which calls the dataset `what`.
    """
    chosen = named_part(parts, train, what) if train else _first(parts, (*TRAIN, WHOLE))
    if chosen is None:
        raise ConfigError(
            f"{what} has the parts {_list(parts)}, none of them for training; choose one with "
            "--train-split."
        )
    if val:
        return chosen, named_part(parts, val, what)
    if fraction is not None or chosen == WHOLE:
        return chosen, None
    rest = [name for name in parts if name != chosen]
    if found := _first(rest, VAL):
        return chosen, found
    if rest:
        other = _first(rest, TEST) or min(rest)
        raise ConfigError(
            f"{what} has the parts {_list(parts)}, none of them for validation; validate on one "
            f"(--val-split {other}), or hold back a share of {chosen} (--val-fraction 0.2)."
        )
    return chosen, None


def part_for_evaluation(parts: Collection[str], split: str | None, what: str) -> str:
    """The part to evaluate on: the one named, or that for validation, for tests, or the only one.

    Raises ConfigError, which calls the dataset `what`.
    """
    if split:
        return named_part(parts, split, what)
    found = _first(parts, (WHOLE, *VAL, *TEST))
    if found is None and len(parts) == 1:
        return min(parts)
    if found is None:
        raise ConfigError(f"{what} has the parts {_list(parts)}; choose one with --split.")
    return found


def named_part(parts: Collection[str], name: str, what: str) -> str:
    """The part called `name`, or like it: "validation" finds `val`. Raises ConfigError."""
    family = next((names for names in (TRAIN, VAL, TEST) if name.lower() in names), ())
    found = _first(parts, (name, *family))
    if found is None:
        has = f"has the parts {_list(parts)}" if set(parts) - {WHOLE} else "is not divided"
        raise ConfigError(f"{what} has no part {name}: it {has}.")
    return found


def _first(parts: Collection[str], names: Collection[str]) -> str | None:
    lower = {part.lower(): part for part in sorted(parts, reverse=True)}
    lower.update((part, part) for part in parts)
    return next((lower[name] for name in names if name in lower), None)


def _list(parts: Collection[str]) -> str:
    return ", ".join(sorted(parts))
