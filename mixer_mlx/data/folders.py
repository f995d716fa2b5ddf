"""Images in one folder per class, on disk or in an archive.

root/<class>/<images>               without splits
root/<split>/<class>/<images>       splits called train, val, test, ... (`dataset.family`)

One more folder may enclose all of it. `layout` decides which it is.
"""

import io
import os
import posixpath
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

import numpy as np

from mixer_mlx.errors import ConfigError
from mixer_mlx.images.archives import all_images_in
from mixer_mlx.images.find import images_below
from mixer_mlx.images.names import BROKEN_LINK, OUTSIDE, Skipped, is_clutter, is_image
from mixer_mlx.images.stored import StoredImage, fail
from mixer_mlx.labels import canonical

from . import layout
from .dataset import UNSPLIT, Dataset, Entry
from .notes import Notes

METADATA = ("metadata.csv", "metadata.jsonl")
"""Lists of a folder's images, as the Hub's image folders have."""

MEMORY_BYTES = 2**30
"""The image files of a compressed tar are read into memory, up to this total size."""

Splits = Mapping[str, Callable[[], Dataset]]
"""A dataset's splits by name (UNSPLIT alone if it has none), each a function that reads it."""


class Tree(Protocol):
    """A folder, on disk or in an archive; `str` of it is its path."""

    def folders(self) -> "Mapping[str, Tree]":
        """Its subfolders by name, sorted, without hidden ones and clutter."""

    def loose_images(self) -> int:
        """How many images lie directly in it."""

    def images(self) -> Sequence[Entry]:
        """The images in it and below, sorted, with a folder's own images before its subfolders."""

    def broken_links(self) -> Sequence[str]:
        """Names of links in it that lead nowhere."""

    def list_file(self, name: str) -> "Callable[[], IO[bytes]] | None":
        """Opens the list of that name directly in it, if there is one; raises OSError."""

    def image(self, name: str) -> Entry | None:
        """The image at a path relative to it, "/" between folders; None if there is none."""

    def missing(self, name: str) -> Entry:
        """An image that can't be read, in place of one that a list names."""


class DiskTree:
    """A folder on disk; what `images` leaves out is counted in `skipped`."""

    def __init__(self, path: Path, skipped: Skipped | None = None) -> None:
        self.path = path
        self.skipped = Skipped() if skipped is None else skipped

    def __str__(self) -> str:
        return str(self.path)

    def folders(self) -> dict[str, Tree]:
        with os.scandir(self.path) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if not (entry.name.startswith(".") or is_clutter(entry.name)) and entry.is_dir()
            )
        return {name: DiskTree(self.path / name, self.skipped) for name in names}

    def loose_images(self) -> int:
        with os.scandir(self.path) as entries:
            return sum(is_image(entry.name) and not entry.is_dir() for entry in entries)

    def images(self) -> list[Path]:
        return list(map(Path, self.image_names()))

    def image_names(self) -> list[str]:
        """Paths of the images in it and below."""
        return list(images_below(str(self.path), self.skipped))

    def broken_links(self) -> list[str]:
        links = (entry for entry in os.scandir(self.path) if entry.is_symlink())
        return sorted(link.name for link in links if not os.path.exists(link.path))

    def list_file(self, name: str) -> Callable[[], IO[bytes]] | None:
        path = self.path / name
        return (lambda: path.open("rb")) if path.is_file() else None

    def image(self, name: str) -> Path | None:
        return path if (path := self.path / name).is_file() else None

    def missing(self, name: str) -> Path:
        return self.path / name


class ArchiveTree:
    """A folder in an archive: its members, each with its path below the folder."""

    def __init__(self, name: str, members: list[tuple[tuple[str, ...], StoredImage]]) -> None:
        self.name, self.members = name, members

    def __str__(self) -> str:
        return self.name

    @cached_property
    def _folders(self) -> dict[str, "ArchiveTree"]:
        below: dict[str, list[tuple[tuple[str, ...], StoredImage]]] = {}
        for path, member in self.members:
            if len(path) > 1:
                below.setdefault(path[0], []).append((path[1:], member))
        return {name: ArchiveTree(f"{self.name}/{name}", below[name]) for name in sorted(below)}

    def folders(self) -> dict[str, "ArchiveTree"]:
        return self._folders

    @cached_property
    def _files(self) -> dict[tuple[str, ...], StoredImage]:
        return dict(self.members)

    def loose_images(self) -> int:
        return sum(len(path) == 1 and path[0] not in METADATA for path, _ in self.members)

    def images(self) -> list[StoredImage]:
        found = [item for item in self.members if item[0][-1] not in METADATA]
        found.sort(key=lambda item: [*((1, p) for p in item[0][:-1]), (0, item[0][-1])])
        return [member for _, member in found]

    def broken_links(self) -> list[str]:
        return []  # they were skipped

    def list_file(self, name: str) -> Callable[[], IO[bytes]] | None:
        member = self._files.get((name,))
        return None if member is None else lambda: io.BytesIO(member.read())

    def image(self, name: str) -> StoredImage | None:
        return self._files.get(PurePosixPath(posixpath.normpath(name)).parts)

    def missing(self, name: str) -> StoredImage:
        text = "The archive doesn't hold this image, which its list names; pack it again."
        return StoredImage(f"{self.name}/{name}", partial(fail, text))


def open_archive(path: Path, skipped: Skipped | None = None) -> ArchiveTree:
    """The images in a .zip or .tar file. Raises ConfigError if it lacks random access."""
    name = str(path)
    members = all_images_in(name, memory_bytes=MEMORY_BYTES, skipped=skipped, also=METADATA)
    return ArchiveTree(name, [(PurePosixPath(m.name[len(name) + 1 :]).parts, m) for m in members])


def find(tree: Tree, wanted: Collection[str] = (), notes: Notes | None = None) -> Splits:
    """The splits of a dataset; with a folder named in `wanted`, all of its folders are splits.

    Raises ConfigError for a layout that could be read in two ways.
    """
    notes = Notes() if notes is None else notes
    tree = layout.unwrapped(tree)
    named = [name for name in tree.folders() if canonical(name) in wanted]
    splits = layout.find_splits(tree, named, notes.left_out) or {UNSPLIT: tree}
    splits = {canonical(name): folder for name, folder in splits.items()}
    notes.form = "one folder per class" + ("" if UNSPLIT in splits else ", in splits")
    return {name: partial(read_classes, folder, notes.skipped) for name, folder in splits.items()}


def read_classes(tree: Tree, skipped: Skipped | None = None) -> Dataset:
    """A dataset from folders of images; classes and images sorted by name.

    Raises ConfigError for a folder without classes, for classes without images, and for a class
    that is a broken link. Images beside the classes are counted in `skipped`.
    """
    skipped = Skipped() if skipped is None else skipped
    folders = tree.folders()
    broken = tree.broken_links()
    if dangling := [name for name in broken if not is_image(name)]:
        raise ConfigError(f"{tree}/{dangling[0]} is a broken link; mend it, or remove it.")
    if not folders:
        if not skipped:
            tree.images()  # counts what they are
        raise ConfigError(
            f"Expected one folder per class: {tree}/<class>/*.jpg. {skipped.sentence()}".rstrip()
        )
    skipped.note(BROKEN_LINK, len(broken))
    skipped.note(OUTSIDE, tree.loose_images() - len(broken))
    paths: list[Entry] = []
    labels: list[int] = []
    classes = sorted(set(map(canonical, folders)))
    index = {name: label for label, name in enumerate(classes)}
    for name, folder in sorted(folders.items(), key=lambda item: canonical(item[0])):
        before = skipped.copy()
        found = folder.images()
        if not found:
            why = Skipped(skipped - before).sentence()
            raise ConfigError(
                f"{folder} holds no images; add some, or remove the folder. {why}".rstrip()
            )
        paths += found
        labels += [index[canonical(name)]] * len(found)
    return Dataset(tuple(classes), tuple(paths), np.array(labels, np.int32))
