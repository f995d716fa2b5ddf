"""ImageNet's validation images as they lie on disks, and the ReaL labels.

The labels of a flat folder are in a text file, in it or beside it:

val.txt                                         FILE LABEL in each line (Caffe); labels from 0
imagenet_2012_validation_synset_labels.txt      a WordNet id for each image, in order of the names
ILSVRC2012_validation_ground_truth.txt          a number for each image, from 1 to 1000, in an order
                                                of the development kit's own, which its meta.mat has

ReaL ("Are we done with ImageNet?", arXiv 2006.07159) gives each of the 50,000 images all labels
that are right, perhaps none.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixer_mlx import labels
from mixer_mlx.errors import ConfigError
from mixer_mlx.runtime.documents import parse_json, read_text

from .dataset import Dataset, Entry, by_name

TRUTH_FILES = (
    "val.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "ILSVRC2012_validation_ground_truth.txt",
)
CLASSES = 1000
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")
_SYNSET = re.compile(r"n\d{8}")


def find_truth(folder: Path) -> Path | None:
    """The file with the labels of a flat folder: in it, beside it, or None."""
    places = (folder / name for name in TRUTH_FILES), (folder.parent / n for n in TRUTH_FILES)
    return next((path for place in places for path in place if path.is_file()), None)


def read_flat(folder: Path, images: Sequence[str], truth: Path) -> Dataset:
    """The images of a folder with the labels of a file. Raises ConfigError.

    Classes are WordNet ids, or what `val.txt` calls them.
    """
    paths = sorted(map(Path, images))
    lines = [line.split() for line in _text(truth).splitlines() if line.strip()]
    if lines and all(len(line) == 2 for line in lines):
        known = {Path(name).name: label for name, label in lines}
        missing = [path for path in paths if path.name not in known]
        if missing:
            raise ConfigError(f"{truth} has no line for {missing[0].name}; add one.")
        return by_name(paths, [known[path.name] for path in paths])
    if not lines or any(len(line) != 1 for line in lines):
        raise ConfigError(f"Expected lines of FILE LABEL, or of one label each, in {truth}.")
    if len(lines) != len(paths):
        raise ConfigError(
            f"{truth} has {len(lines):,} labels and {folder} {len(paths):,} images; expected one "
            "for each image, in the order of their names."
        )
    words = [line[0] for line in lines]
    if not all(map(_SYNSET.fullmatch, words)):
        synsets = _development_kit(truth)
        if unknown := [word for word in words if word not in synsets]:
            raise ConfigError(f"Expected numbers from 1 to {CLASSES} in {truth}, not {unknown[0]}.")
        words = [synsets[word] for word in words]
    return by_name(paths, words)


def _development_kit(truth: Path) -> Mapping[str, str]:
    """The kit's number of each class -> its WordNet id, from `meta.mat` beside the labels."""
    path = truth.with_name("meta.mat")
    if not path.is_file():
        raise ConfigError(
            f"{truth} numbers the classes in an order of its own; put the development kit's "
            f"meta.mat beside it, as {path}."
        )
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ConfigError(f"{path} needs SciPy to be read; pip install scipy.") from error
    try:
        rows: Any = loadmat(path, squeeze_me=True)["synsets"]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in rows}
    except Exception as error:  # SciPy raises anything on a damaged file
        raise ConfigError(f"{path} isn't the development kit's; use an intact copy.") from error


def read_real(path: Path) -> list[frozenset[int]]:
    """The ReaL labels: for each validation image, in order, the indices that are right.

    Raises ConfigError.
    """
    try:
        values = parse_json(_text(path))
        if not isinstance(values, list) or not all(isinstance(value, list) for value in values):
            raise ConfigError("it must contain a list of lists.")
        found = [frozenset(value) for value in values]
        if any(type(i) is not int or not 0 <= i < CLASSES for right in found for i in right):
            raise ConfigError(f"labels must be whole numbers from 0 to {CLASSES - 1}.")
    except ConfigError as error:
        raise ConfigError(f"{path} doesn't hold ReaL labels: {error}") from error
    return found


def image_number(entry: Entry) -> int | None:
    """The number of a validation image, from 1, by its name; None for another file."""
    found = _NUMBER.search(str(entry).rsplit("/", 1)[-1])
    return int(found[1]) if found else None


def outputs(model_labels: Sequence[str], num_classes: int) -> list[int | None]:
    """ImageNet-1k's classes, in order -> the model's output of the same class.

    None for a class that the model lacks. Raises ConfigError for a model of other classes.
    """
    own = labels.synsets_of(model_labels)
    if not own and num_classes == CLASSES:
        return list(range(CLASSES))
    index = {synset: i for i, synset in reversed(list(enumerate(own)))}
    found = [index.get(synset) for synset in labels.read_synsets("imagenet1k")]
    if not any(output is not None for output in found):
        raise ConfigError("ReaL labels are for models of ImageNet's classes; leave them out.")
    return found


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except ConfigError as error:
        raise ConfigError(f"{path} can't be used: {error}") from error
