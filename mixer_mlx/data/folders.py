"""Images in folders by class, on disk or in an archive.

root/<class>/<images>               one part
root/<part>/<class>/<images>        parts called train, val, test, ... (`splits.KNOWN`)

In an archive all that may lie in one folder more.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from mixer_mlx.errors import ConfigError
from mixer_mlx.images.archives import StoredImage, all_images_in
from mixer_mlx.images.find import SUFFIXES, find_images

from .dataset import KNOWN, TRAIN, WHOLE, Dataset, Entry

MEMORY_BYTES = 2**30
"""A compressed tar is decoded once, into memory, if its images' files have at most this size."""

Parts = Mapping[str, Callable[[], Dataset]]
"""What a dataset consists of: name of a part (`WHOLE` alone if there are none) -> read it."""


class Tree(Protocol):
    """A folder, on disk or in an archive; `str` of it is its name."""

    def folders(self) -> "Mapping[str, Tree]":
        """The folders in it by name, sorted; hidden ones are left out."""

    def holds_images(self) -> bool:
        """Whether images lie directly in it."""

    def images(self) -> Sequence[Entry]:
        """The images in it and below, sorted: those of a folder before those of its folders."""


class DiskTree:
    """A folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def folders(self) -> dict[str, Tree]:
        names = sorted(
            entry.name
            for entry in self.path.iterdir()
            if entry.is_dir() and not entry.name.startswith(".")
        )
        return {name: DiskTree(self.path / name) for name in names}

    def holds_images(self) -> bool:
        names = (entry.name for entry in self.path.iterdir() if not entry.is_dir())
        return any(_is_image(name) for name in names)

    def images(self) -> list[Path]:
        return [Path(str(image)) for image in find_images([self.path])]


def _is_image(name: str) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in SUFFIXES


class ArchiveTree:
    """A folder in an archive: its members, each with the rest of its path."""

    def __init__(self, name: str, members: list[tuple[tuple[str, ...], StoredImage]]) -> None:
        self.name, self.members = name, members

    def __str__(self) -> str:
        return self.name

    def folders(self) -> dict[str, "ArchiveTree"]:
        below: dict[str, list[tuple[tuple[str, ...], StoredImage]]] = {}
        for path, member in self.members:
            if len(path) > 1:
                below.setdefault(path[0], []).append((path[1:], member))
        return {name: ArchiveTree(f"{self.name}/{name}", below[name]) for name in sorted(below)}

    def holds_images(self) -> bool:
        return any(len(path) == 1 for path, _ in self.members)

    def images(self) -> list[StoredImage]:
        ordered = sorted(
            self.members, key=lambda item: [*((1, p) for p in item[0][:-1]), (0, item[0][-1])]
        )
        return [member for _, member in ordered]


def open_archive(path: Path) -> ArchiveTree:
    """The images in a .zip or .tar file. Raises ConfigError if it can't be read at random."""
    name = str(path)
    members = all_images_in(name, SUFFIXES, memory_bytes=MEMORY_BYTES)
    tree = ArchiveTree(name, [(PurePosixPath(m.name[len(name) + 1 :]).parts, m) for m in members])
    folders = tree.folders()
    if len(folders) == 1 and not tree.holds_images():
        ((name, inner),) = folders.items()
        if name.lower() not in KNOWN and not inner.holds_images():
            return inner
    return tree


def find(tree: Tree, wanted: Collection[str] = ()) -> Parts:
    """The parts of a dataset; folders named in `wanted` are parts whatever they are called."""
    parts = _parts(tree.folders(), wanted)
    if not parts:
        return {WHOLE: partial(read_classes, tree)}
    return {name: partial(read_classes, part) for name, part in parts.items()}


def _parts(folders: Mapping[str, Tree], wanted: Collection[str]) -> Mapping[str, Tree]:
    if not folders.keys().isdisjoint(wanted):
        return folders
    # A class may be called `train`: then images lie in it, or folders beside it are no parts.
    known = {
        name: folder
        for name, folder in folders.items()
        if name.lower() in KNOWN and not folder.holds_images() and folder.folders()
    }
    has_train = any(name.lower() in TRAIN for name in known)
    return known if len(known) == len(folders) or (has_train and len(known) > 1) else {}


def read_classes(tree: Tree) -> Dataset:
    """A dataset from folders of images; classes and images sorted by name.

    Raises ConfigError for a folder without classes, and for classes without images.
    """
    folders = tree.folders()
    if not folders:
        raise ConfigError(
            f"{tree} holds no folders; put the images of each class into a folder of its name."
        )
    paths: list[Entry] = []
    labels: list[int] = []
    for label, folder in enumerate(folders.values()):
        found = folder.images()
        if not found:
            raise ConfigError(f"{folder} holds no images; add some, or remove it.")
        paths += found
        labels += [label] * len(found)
    return Dataset(tuple(folders), tuple(paths), np.array(labels, np.int32))
