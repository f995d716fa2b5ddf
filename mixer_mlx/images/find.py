"""The images that a user's arguments refer to: files, folders, archives, patterns, URLs."""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import BinaryIO

from mixer_mlx.errors import ImageError
from mixer_mlx.runtime.macos import own_folders

from .archives import images_in, is_archive
from .decode import LazyImage
from .names import (
    BROKEN_LINK,
    FOLDER_LINK,
    HIDDEN,
    SUFFIXES,
    Skipped,
    has_image_suffix,
    is_clutter,
    reason_to_skip,
)

__all__ = ["SUFFIXES", "Fetch", "find_images", "images_below", "read_names"]

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
        yield from images_below(name)
    elif is_archive(name):
        yield from images_in(name)
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


def images_below(folder: str, skipped: Skipped | None = None) -> Iterator[str]:
    """The images in a folder and below, as `find_images` yields them.

    With `skipped`, broken links are left out, and all that is left out is counted there.
    """
    unread: list[str] = []
    for root, folders, files in os.walk(folder, onerror=lambda e: unread.append(e.filename)):
        if skipped is not None:
            _note_folders(root, folders, skipped)
        folders[:] = sorted(name for name in folders if not _is_passed_over(name))
        folders[:] = own_folders(root, folders)
        for name in sorted(files):
            reason = reason_to_skip([name])
            path = os.path.join(root, name)
            if reason is None and skipped is not None and not os.path.exists(path):
                reason = BROKEN_LINK
            if reason is None:
                yield path
            elif skipped is not None:
                skipped.note(reason)
    yield from unread  # decoding them raises the reason


def _is_passed_over(folder: str) -> bool:
    return folder.startswith(".") or is_clutter(folder)


def _note_folders(root: str, folders: Iterable[str], skipped: Skipped) -> None:
    """Count linked folders, and the images in hidden ones."""
    for name in folders:
        path = os.path.join(root, name)
        if is_clutter(name):
            continue
        if os.path.islink(path):
            skipped.note(FOLDER_LINK)
        elif name.startswith("."):
            inner = (file for _, _, files in os.walk(path) for file in files)
            skipped.note(HIDDEN, sum(map(has_image_suffix, inner)))


def _is_url(name: str) -> bool:
    return re.match("https?://", name, re.IGNORECASE) is not None
