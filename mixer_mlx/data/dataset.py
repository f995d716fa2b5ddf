"""Labelled images as a list, and which of a dataset's splits to use. No image is opened here."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError
from mixer_mlx.images.stored import StoredImage
from mixer_mlx.labels import canonical, synsets_of

Entry: TypeAlias = Path | StoredImage
"""An image as `decode` takes it; `str` of it is its printable name."""


@dataclass(frozen=True)
class Dataset:
    """`paths[i]` shows class `classes[labels[i]]`; labels are int32, names of classes in NFC."""

    classes: tuple[str, ...]
    paths: tuple[Entry, ...]
    labels: NDArray[np.int32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(map(canonical, self.classes)))

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int] | NDArray[np.intp]) -> "Dataset":
        """The images at `indices`, with all classes."""
        return Dataset(self.classes, tuple(self.paths[i] for i in indices), self.labels[indices])

    def names(self) -> list[str]:
        """The classes with their numbers where several have one name: "crane (134)"."""
        times = Counter(self.classes)
        return [f"{name} ({i})" if times[name] > 1 else name for i, name in enumerate(self.classes)]

    def counts(self) -> dict[str, int]:
        """Number of images by class, as in `names`."""
        numbers = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.names(), numbers.tolist(), strict=True))

    def present(self) -> list[str]:
        """The classes that have images, as in `names`."""
        return [name for name, count in self.counts().items() if count]


MAX_NAME = 1000
"""Characters of a class name; a list or a Parquet file may hold anything in a column of labels."""


def by_name(paths: Sequence[Entry], names: Sequence[str]) -> Dataset:
    """A dataset from the class name of each image; classes sorted, by value if all are numbers.

    Raises ConfigError for a name longer than MAX_NAME.
    """
    given = set(names)
    if long := next((name for name in given if len(name) > MAX_NAME), None):
        raise ConfigError(
            f"Expected labels of at most {MAX_NAME:,} characters, not {len(long):,} "
            f"({long[:50]}...); choose another column."
        )
    name_of = {name: canonical(name) for name in given}
    are_numbers = all(name.isascii() and name.isdigit() for name in name_of.values())
    by_value = (lambda name: (int(name), name)) if are_numbers else None
    classes = sorted(set(name_of.values()), key=by_value)
    number = {name: label for label, name in enumerate(classes)}
    label_of = {name: number[own] for name, own in name_of.items()}
    return Dataset(tuple(classes), tuple(paths), np.array([label_of[n] for n in names], np.int32))


def relabelled(dataset: Dataset, classes: tuple[str, ...], what: str) -> Dataset:
    """The same images with labels as indices into `classes`, of which the dataset may lack some.

    Raises ConfigError, naming the dataset `what`, for an image of another class.
    """
    if dataset.classes == classes:
        return dataset
    if dataset.names() != list(dataset.classes) or len(set(classes)) < len(classes):
        raise ConfigError(
            f"{what} and the training images have several classes of one name, in different lists; "
            "give each class a name of its own."
        )
    index = {name: label for label, name in enumerate(classes)}
    if unknown := [name for name in dataset.present() if name not in index]:
        raise ConfigError(
            f"{what} have a class that the training images lack, {unknown[0]}; remove it, or add "
            "training images of it."
        )
    table = np.array([index.get(name, -1) for name in dataset.classes], np.int32)
    return Dataset(classes, dataset.paths, table[dataset.labels])


Hold: TypeAlias = Callable[["Dataset", float, int], NDArray[np.bool_]]
"""(dataset, fraction, seed) -> which images are held out, (N,), as `held_out`."""


def hold_out(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Hold out a random fraction of each class: the rest, and what was held out.

    Every class keeps at least one image, and gives one if it has two or more. Raises ConfigError
    for a fraction outside 0 to 1.
    """
    return parted(dataset, held_out(dataset, fraction, seed))


def parted(dataset: Dataset, held: NDArray[np.bool_]) -> tuple[Dataset, Dataset]:
    """The images that aren't held out, and those that are."""
    return dataset.take(np.flatnonzero(~held)), dataset.take(np.flatnonzero(held))


def held_out(dataset: Dataset, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which images `hold_out` holds out, (N,)."""
    held = np.zeros(len(dataset), bool)
    targets = held_counts(dataset, fraction)
    for order, count in zip(shuffled(dataset, seed), targets.tolist(), strict=True):
        held[order[:count]] = True
    return held


def held_counts(dataset: Dataset, fraction: float) -> NDArray[np.intp]:
    """How many images of each class are to be held out, (K,). Raises ConfigError."""
    if not 0 < fraction < 1:
        raise ConfigError(f"Expected a validation fraction between 0 and 1, not {fraction}.")
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    wanted = np.maximum(1, np.rint(fraction * counts).astype(int))
    return np.maximum(0, np.minimum(wanted, counts - 1))


def shuffled(dataset: Dataset, seed: int) -> Iterator[NDArray[np.intp]]:
    """The indices of each class's images, in random order."""
    by_class = np.argsort(dataset.labels, kind="stable")
    ends = np.searchsorted(dataset.labels[by_class], range(1, len(dataset.classes)))
    for label, members in enumerate(np.split(by_class, ends)):
        yield np.random.default_rng([seed, label]).permutation(members)


def match_classes(classes: Sequence[str], labels: Sequence[str]) -> list[int]:
    """For each class of a dataset, the index of the model's label that it means.

    Equal lists match by position. Else all classes are called by their label or one of its
    synonyms ("tench" for "tench, Tinca tinca"), or all by WordNet ids ("n01440764", for models
    with ImageNet's labels), or all by indices. Raises ConfigError, also for a name that several
    labels have.
    """
    if list(classes) == list(labels):
        return list(range(len(labels)))
    named: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        for name in dict.fromkeys([label, *label.split(", ")]):
            named.setdefault(name, []).append(index)
    numbered = {str(index): [index] for index in range(len(labels))}
    synsets = {name: [index] for index, name in enumerate(synsets_of(labels))}
    ways = [[way.get(name, []) for name in classes] for way in (named, synsets, numbered)]
    found = next((way for way in ways if all(way)), None)
    if found is None:
        raise _no_match(classes, ways)
    for name, indices in zip(classes, found, strict=True):
        if len(indices) > 1:
            candidates = ", ".join(f"{index} ({labels[index]})" for index in indices[:5])
            raise ConfigError(
                f"The model has several labels for the class {name!r}: {candidates}; call all "
                "classes by indices, or by WordNet ids."
            )
    return [indices[0] for indices in found]


def _no_match(classes: Sequence[str], ways: Sequence[Sequence[list[int]]]) -> ConfigError:
    if all(map(any, zip(*[[bool(found) for found in way] for way in ways], strict=True))):
        return ConfigError(
            "Some classes match the model's labels only by name, others only by number; call all "
            "of them by labels, or all by indices."
        )
    best = max(ways, key=lambda way: sum(map(bool, way)))
    missing = [name for name, found in zip(classes, best, strict=True) if not found]
    return ConfigError(
        f"The model has no label {missing[0]!r}, and {len(missing)} of {len(classes)} classes "
        "match none; rename them to labels in `info.labels`."
    )


UNSPLIT = ""
"""The name that stands for all of a dataset without splits."""


def splits_for_training(
    splits: Collection[str], train: str | None, val: str | None, fraction: float | None, what: str
) -> tuple[str, str | None]:
    """The splits to train and to validate on; None: hold out a fraction of the first.

    `train`, `val` and `fraction` are the user's choices; `fraction` wins over a validation split
    that wasn't asked for. Raises ConfigError, naming the dataset `what`.
    """
    chosen = named_split(splits, train, what) if train else _only(splits, "train", what)
    if chosen is None and UNSPLIT in splits:
        chosen = UNSPLIT
    if chosen is None:
        raise ConfigError(
            f"{what} has no training split, only {_list(splits)}; choose one with `train_split`."
        )
    if val:
        return chosen, named_split(splits, val, what)
    if fraction is not None or chosen == UNSPLIT:
        return chosen, None
    rest = [name for name in splits if name != chosen]
    if found := _only(rest, "val", what):
        return chosen, found
    if rest:
        other = next((name for name in sorted(rest) if family(name) == "test"), min(rest))
        raise ConfigError(
            f"{what} has no validation split, only {_list(splits)}; validate on one of them "
            f"(`val_split={other!r}`), or on a fraction of {chosen} "
            "(`val_fraction=0.2`)."
        )
    return chosen, None


def split_for_evaluation(splits: Collection[str], split: str | None, what: str) -> str:
    """The split named, else the validation split, the test split, or the only one.

    Raises ConfigError, naming the dataset `what`.
    """
    if split:
        return named_split(splits, split, what)
    found = UNSPLIT if UNSPLIT in splits else None
    for kind in ("val", "test"):
        found = _only(splits, kind, what) if found is None else found
    if found is None and len(splits) == 1:
        return min(splits)
    if found is None:
        raise ConfigError(f"{what} has several splits, {_list(splits)}; choose one with `split`.")
    return found


def named_split(splits: Collection[str], name: str, what: str) -> str:
    """The split called `name`, or a synonym: "validation" finds `val`. Raises ConfigError."""
    if name in splits:
        return name
    lower = {split.lower(): split for split in sorted(splits, reverse=True)}
    if name.lower() in lower:
        return lower[name.lower()]
    found = _only(splits, family(name), what) if name.lower() in KNOWN else None
    if found is None:
        known = f"only {_list(splits)}" if set(splits) - {UNSPLIT} else "nor any other"
        raise ConfigError(f"{what} has no split {name}, {known}.")
    return found


_ARGUMENTS = {"train": "train_split", "val": "val_split", "test": "split"}


def _only(splits: Collection[str], kind: str | None, what: str) -> str | None:
    """The split of a family: the only one, or the one with the plainest name. None without any.

    Raises ConfigError for several, e.g. train_a and train_b.
    """
    found = sorted(split for split in splits if kind and family(split) == kind)
    plain = {split.lower(): split for split in reversed(found)}
    for name in _FAMILIES.get(kind or "", ()):
        if name in plain:
            return plain[name]
    if len(found) > 1:
        raise ConfigError(
            f"{what} has several {kind} splits, {_list(found)}; choose one with "
            f"`{_ARGUMENTS[str(kind)]}`."
        )
    return found[0] if found else None


def _list(splits: Collection[str]) -> str:
    return ", ".join(sorted(splits))


TRAIN = ("train", "training")
VAL = ("val", "valid", "validation", "dev", "eval", "evaluation")
TEST = ("test", "testing")
KNOWN = {*TRAIN, *VAL, *TEST}

_FAMILIES = {"train": TRAIN, "val": VAL, "test": TEST}
_UNLABELLED = re.compile(r"pred|predict|predictions?|unlabell?ed|submissions?")
_NOUNS = r"(?:sets?|data|images?|imgs?|split)?"


def family(name: str) -> str | None:
    """ "train", "val" or "test" if one word of the name says so, e.g. "Training Data", "seg_train".

    None for a name without such a word, or with words of two families.
    """
    found = {
        kind
        for word in _words(name)
        for kind, names in _FAMILIES.items()
        if re.fullmatch(f"(?:{'|'.join(names)}){_NOUNS}", word)
    }
    return found.pop() if len(found) == 1 else None


def is_unlabelled(name: str) -> bool:
    """Whether the name is that of images without labels, e.g. "seg_pred"."""
    return any(_UNLABELLED.fullmatch(word) for word in _words(name))


def _words(name: str) -> list[str]:
    """Lower-case words, also of "TrainSet" and "train2017"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+", spaced.lower())
