"""The images that a user's arguments refer to: files, folders, archives, patterns, URLs."""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from mixer_mlx.errors import ImageError
from mixer_mlx.runtime.macos import own_folders

from .archives import images_in, is_archive
from .decode import LazyImage

_FORMATS = "avif bmp gif heic heif jfif jpe jpeg jpg mpo png tif tiff webp"
SUFFIXES = {f".{name}" for name in _FORMATS.split()}
"""Suffixes of images in folders and archives, in lower or upper case."""

Fetch = Callable[[str], bytes]
"""Downloads a URL; raises ImageError."""

_CHUNK = 2**16


def find_images(
    names: Iterable[str | os.PathLike[str]],
    *,
    listed: Iterable[str] | None = None,
    fetch: Fetch | None = None,
) -> Iterator[str | LazyImage]:
    """Images for `Classifier.predict`, found lazily; `str` of each is its name.

    A path to a file is yielded unchanged, whether it exists or not. A folder yields the images in
    it and below, sorted; hidden files and folders and other suffixes are skipped, and links to
    folders aren't followed; of a Photos library only the originals are read, with a RuntimeWarning.
    A .zip or .tar file yields its images in its own order (see `archives.images_in`). A name with
    `*`, `?` or `[` yields the sorted matches, unless a file has that name; `**` matches any depth.

    "-" stands for the names in `listed`, which aren't patterns; without `listed` it is a file.
    http(s) URLs are passed to `fetch` when they are decoded; without `fetch` they are paths.
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
    """The names in a list, as they arrive: one per line, or with `null` NUL-separated.

    Bytes that aren't valid in the file system's encoding survive, as in `os.fsdecode`.
    """
    names = _split_at_zeros(stream) if null else (line.rstrip(b"\r\n") for line in stream)
    yield from (os.fsdecode(name) for name in names if name)


def _split_at_zeros(stream: BinaryIO) -> Iterator[bytes]:
    rest = b""
    # Unlike read, read1 returns what is there and doesn't wait for more.
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
    """What the shell would expand it to; a pattern without matches is reported in its turn."""
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        yield LazyImage(pattern, _no_match)
    for name in found:
        # ** also matches all that is in a folder it matches.
        if not ("**" in pattern and os.path.isdir(name)):
            yield from _named(name, fetch)


def _no_match() -> bytes:
    raise ImageError("No file matches this pattern; check it.")


def _below(folder: str) -> Iterator[str]:
    unread: list[str] = []
    for root, folders, files in os.walk(folder, onerror=lambda e: unread.append(e.filename)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        folders[:] = own_folders(root, folders)
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield os.path.join(root, name)
    yield from unread  # decoding them raises the reason


def _is_url(name: str) -> bool:
    return re.match("https?://", name, re.IGNORECASE) is not None
