"""The images that a user's arguments refer to: files, folders, archives, patterns, URLs."""

import fnmatch
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

__all__ = ["SUFFIXES", "Fetch", "find_images", "images_below", "is_missing", "read_names"]

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
    `*`, `?` or `[` yields the sorted matches, unless a file has that name; `**` matches any depth,
    of the folders that a folder's own name would search.

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
    deep = any(part == "**" for part in pattern.split(os.sep))
    found = sorted({*_below(pattern)} if deep else glob.glob(pattern))
    if not found:
        yield LazyImage(pattern, _no_match)
    for name in found:
        yield from _named(name, fetch)


def _below(pattern: str) -> Iterator[str]:
    """The files that a pattern with `**` matches.

    By our own walk, since `glob` follows links to folders: two of them to `.` make 2**40 paths.
    """
    start, _, rest = f"{os.sep}{pattern}".partition(f"{os.sep}**{os.sep}")
    if not rest:  # it ends with **
        start, rest = start.removesuffix(f"{os.sep}**"), "**"
    start = start.removeprefix(os.sep) if not pattern.startswith(os.sep) else start[1:] or os.sep
    matches = re.compile(_regex(rest)).fullmatch
    for top in sorted(glob.glob(start)) if start else [""]:
        for root, _, files in walk(top or os.curdir):
            inner = os.path.relpath(root, top or os.curdir)
            for file in files:
                name = file if inner == os.curdir else os.path.join(inner, file)
                if matches(name):
                    yield os.path.join(top, name)


def _regex(pattern: str) -> str:
    """What a relative pattern matches, at any depth, as `glob` understands it."""
    parts = pattern.split(os.sep)
    *folders, last = parts
    texts = [
        "(?:[^/]+/)*" if part == "**" else f"(?![.]){_part(part)}/" for part in ["**", *folders]
    ]
    return "".join(texts) + ("(?![.])[^/]+" if last == "**" else f"{_visible(last)}{_part(last)}")


def _visible(part: str) -> str:
    return "" if part.startswith(".") else "(?![.])"


def _part(part: str) -> str:
    """One folder's or file's name: as `fnmatch`, without its end."""
    return fnmatch.translate(part).removeprefix("(?s:").removesuffix(r")\Z").removesuffix(r")\z")


def is_missing(image: str | LazyImage) -> bool:
    """Whether what `find_images` yields is a path without a file, or a pattern without matches."""
    if isinstance(image, LazyImage):
        return image.read is _no_match
    return not os.path.lexists(image)


def _no_match() -> bytes:
    raise ImageError("No file matches this pattern; check it.")


def images_below(folder: str, skipped: Skipped | None = None) -> Iterator[str]:
    """The images in a folder and below, as `find_images` yields them.

    With `skipped`, broken links are left out, and all that is left out is counted there.
    """
    unread: list[str] = []
    for root, folders, files in walk(folder, unread):
        if skipped is not None:
            _note_folders(root, folders, skipped)
        for name in files:
            reason = reason_to_skip([name])
            path = os.path.join(root, name)
            if reason is None and skipped is not None and not os.path.exists(path):
                reason = BROKEN_LINK
            if reason is None:
                yield path
            elif skipped is not None:
                skipped.note(reason)
    yield from unread  # decoding them raises the reason


Walked = tuple[str, list[str], list[str]]
"""A folder, and the names of its subfolders and files."""


def walk(folder: str, unread: list[str] | None = None) -> Iterator[Walked]:
    """Each folder, its subfolders' names and its files' names, sorted, from the top down.

    Not entered are links, hidden folders, clutter, and those that `own_folders` leaves out. What
    can't be read is added to `unread`. (`os.walk` is recursive before Python 3.12, and fails in
    folders a thousand deep.)
    """
    waiting = [folder]
    while waiting:
        root = waiting.pop()
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(root) as entries:
                for entry in entries:
                    (folders if entry.is_dir() else files).append(entry.name)
        except OSError:
            if unread is not None:
                unread.append(root)
            continue
        folders.sort()
        files.sort()
        yield root, folders, files
        visible = (name for name in folders if not _is_passed_over(name))
        own = own_folders(root, [n for n in visible if not os.path.islink(os.path.join(root, n))])
        waiting += [os.path.join(root, name) for name in reversed(own)]


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
            inner = (file for _, _, files in walk(path) for file in files)
            skipped.note(HIDDEN, sum(map(has_image_suffix, inner)))


def _is_url(name: str) -> bool:
    return re.match("https?://", name, re.IGNORECASE) is not None
