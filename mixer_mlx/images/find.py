"""Which images are meant by what a user names: files, folders, archives, patterns, addresses."""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from .archives import images_in, is_archive
from .decode import LazyImage

SUFFIXES = {
    ".avif",
    ".bmp",
    ".gif",
    ".heic",
    ".heif",
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
"""What a file in a folder or an archive must end in to be tried, in either case."""

Fetch = Callable[[str], bytes]
"""A URL -> the file behind it; raises ImageError."""

_CHUNK = 2**16


def find_images(
    names: Iterable[str | os.PathLike[str]],
    *,
    listed: Iterable[str] | None = None,
    fetch: Fetch | None = None,
) -> Iterator[str | LazyImage]:
    """Images for `Classifier.predict`; `str` of each is its name. Nothing is read in advance.

    A file is given by its path as it stands, whether it exists or not. In place of a folder come
    the images in it and below, sorted; hidden files and folders and other suffixes are passed
    over, and links to folders are not followed. A .zip or .tar file is taken for a folder, in the
    order it has (see `archives.images_in`). A name with `*`, `?` or `[`, if there is no file of
    that name, stands for the files that match, sorted; `**` for any depth.

    "-" stands for the names in `listed`, which are not patterns; without `listed` it is a file.
    http(s) URLs are handed to `fetch` when their turn comes; without `fetch` they are paths.
    """
    for name in (os.fspath(name) for name in names):
        if name == "-" and listed is not None:
            for line in listed:
                yield from _named(line, fetch)
        elif glob.has_magic(name) and not os.path.lexists(name) and not (fetch and _is_url(name)):
            yield from _matching(name, fetch)
        else:
            yield from _named(name, fetch)


def read_names(stream: BinaryIO, *, null: bool = False) -> Iterator[str]:
    """The names in a list, as it comes: one in a line, or with `null` ended by a zero byte each.

    Bytes that are no text in the file system's encoding survive, as in `os.fsdecode`.
    """
    names = _split_at_zeros(stream) if null else (line.rstrip(b"\r\n") for line in stream)
    yield from (os.fsdecode(name) for name in names if name)


def _split_at_zeros(stream: BinaryIO) -> Iterator[bytes]:
    rest = b""
    # read1, unlike read, gives what is there and does not wait for more.
    while chunk := stream.read1(_CHUNK):  # type: ignore[attr-defined]
        *names, rest = (rest + chunk).split(b"\0")
        yield from names
    yield rest


def _named(name: str, fetch: Fetch | None) -> Iterator[str | LazyImage]:
    if fetch is not None and _is_url(name):
        yield LazyImage(name, partial(fetch, name))
    elif os.path.isdir(name):
        yield from _below(name)
    elif is_archive(name):
        yield from images_in(name, SUFFIXES)
    else:
        yield name


def _matching(pattern: str, fetch: Fetch | None) -> Iterator[str | LazyImage]:
    """As if the shell had expanded it; what matches nothing stays, to be reported."""
    found = sorted(glob.glob(pattern, recursive=True))
    for name in found or [pattern]:
        # Below a folder that ** matches, all that is meant matches by itself.
        if not ("**" in pattern and os.path.isdir(name)):
            yield from _named(name, fetch)


def _below(folder: str) -> Iterator[str]:
    unread: list[str] = []
    for root, folders, files in os.walk(folder, onerror=lambda e: unread.append(e.filename)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield os.path.join(root, name)
    yield from unread  # decoded, they say why


def _is_url(name: str) -> bool:
    return re.match("https?://", name, re.IGNORECASE) is not None
