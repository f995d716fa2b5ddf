"""Which files are meant by the paths that a user gives."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES = {
    ".avif",
    ".bmp",
    ".gif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".mpo",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
}
"""What a file in a folder must end in to be tried, in either case."""


def find_pictures(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Files as they are named, and in place of a folder the pictures in it and below, sorted.

    In folders, hidden files and folders and other suffixes are passed over, and links to folders
    are not followed. A named file is always given, whether it exists or not.
    """
    for path in map(Path, paths):
        if path.is_dir():
            yield from _below(path)
        else:
            yield path


def _below(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(root, name)
