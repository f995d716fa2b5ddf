"""Images in one folder per class, on disk or in an archive.

root/<class>/<images>               without splits
root/<split>/<class>/<images>       splits called train, val, test, ... (`dataset.KNOWN`)

In an archive, one more folder may enclose all of it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from mixer_mlx.errors import ConfigError
from mixer_mlx.images.archives import StoredImage, all_images_in
from mixer_mlx.images.find import SUFFIXES, find_images
from mixer_mlx.labels import canonical

from .dataset import KNOWN, TRAIN, UNSPLIT, Dataset, Entry

MEMORY_BYTES = 2**30
"""The image files of a compressed tar are read into memory, up to this total size."""

Splits = Mapping[str, Callable[[], Dataset]]
"""A dataset's splits by name (UNSPLIT alone if it has none), each a function that reads it."""


class Tree(Protocol):
    """A folder, on disk or in an archive; `str` of it is its path."""

    def folders(self) -> "Mapping[str, Tree]":
        """Its subfolders by name, sorted, without hidden ones."""

    def holds_images(self) -> bool:
        """Whether images lie directly in it."""

    def images(self) -> Sequence[Entry]:
        """The images in it and below, sorted, with a folder's own images before its subfolders."""


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
    """A folder in an archive: its members, each with its path below the folder."""

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
    """The images in a .zip or .tar file. Raises ConfigError if it lacks random access."""
    name = str(path)
    members = all_images_in(name, SUFFIXES, memory_bytes=MEMORY_BYTES)
    tree = ArchiveTree(name, [(PurePosixPath(m.name[len(name) + 1 :]).parts, m) for m in members])
    folders = tree.folders()
    if len(folders) == 1 and not tree.holds_images():
        ((name, inner),) = folders.items()
        if name.lower() not in KNOWN and not inner.holds_images():
            return inner
    return tree


def find(tree: Tree, wanted: Collection[str] = ()) -> Splits:
    """The splits of a dataset; with a folder named in `wanted`, all of its folders are splits."""
    folders = {canonical(name): folder for name, folder in tree.folders().items()}
    splits = _splits(folders, wanted) or {UNSPLIT: tree}
    return {name: partial(read_classes, folder) for name, folder in splits.items()}


def _splits(folders: Mapping[str, Tree], wanted: Collection[str]) -> Mapping[str, Tree]:
    if not folders.keys().isdisjoint(wanted):
        return folders
    # A class may be called `train`: then it holds images, or a folder beside it isn't a split.
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
        raise ConfigError(f"Expected one folder per class: {tree}/<class>/*.jpg.")
    paths: list[Entry] = []
    labels: list[int] = []
    classes = sorted(set(map(canonical, folders)))
    index = {name: label for label, name in enumerate(classes)}
    for name, folder in sorted(folders.items(), key=lambda item: canonical(item[0])):
        found = folder.images()
        if not found:
            raise ConfigError(f"{folder} holds no images; add some, or remove the folder.")
        paths += found
        labels += [index[canonical(name)]] * len(found)
    return Dataset(tuple(classes), tuple(paths), np.array(labels, np.int32))
