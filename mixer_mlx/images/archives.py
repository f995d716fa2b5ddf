"""Images in .zip and .tar files, read in place: nothing is unpacked to disk."""

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial

from mixer_mlx.errors import ConfigError, ImageError

from .decode import LazyImage
from .names import Skipped
from .pillow import reason
from .stored import DAMAGED, MAX_MEMBER_BYTES, StoredImage, fail
from .tars import tar_members, tar_opener
from .zips import zip_members

MAX_MEMBERS = 2**21
"""Files of any kind in an archive; ImageNet has 1.3 million."""
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_archive(path: str) -> bool:
    """Whether `path` is a file with an archive's suffix."""
    return path.lower().endswith(ARCHIVE_SUFFIXES) and os.path.isfile(path)


def images_in(path: str) -> Iterator[LazyImage]:
    """The images in an archive, in its own order, named `path/member`.

    Images are the regular files whose name ends in one of `SUFFIXES`. Links to other
    members are read from them, and come last. Other links, hidden files, clutter such as
    `__MACOSX`, absolute names and those with `..` are skipped; nested archives aren't opened. If
    the archive is damaged, the last image is named `path` and raises ImageError when read.
    """
    try:
        yield from _members(path, Skipped(), ())
    except ImageError as error:
        yield LazyImage(path, partial(fail, str(error)))


def all_images_in(
    path: str,
    *,
    memory_bytes: int,
    skipped: Skipped | None = None,
    also: Collection[str] = (),
) -> list[StoredImage]:
    """The same images, and files of the names in `also`, to be read in any order, repeatedly.

    A compressed tar can only be decoded from its beginning, so its images are read at once and kept
    in memory. What is left out is counted in `skipped`. Raises ConfigError for an archive that is
    damaged anywhere, and for a compressed tar whose images exceed `memory_bytes`.
    """
    kept: list[StoredImage] = []
    try:
        room = memory_bytes if tar_opener(path) else None
        for member in _members(path, Skipped() if skipped is None else skipped, also):
            if room is not None and member.size <= MAX_MEMBER_BYTES:
                room -= member.size
                if room < 0:
                    raise ImageError(
                        f"Expected at most {memory_bytes:,} bytes of images in a compressed .tar, "
                        "which is kept in memory; unpack it, or pack it as .zip or plain .tar."
                    )
                member = replace(member, read=partial(_kept, member.read()))
            kept.append(member)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}.") from error
    except ImageError as error:
        raise ConfigError(f"{path} can't be used: {error}") from error
    return kept


def _members(path: str, skipped: Skipped, also: Collection[str]) -> Iterator[StoredImage]:
    """Raises ImageError."""
    members = zip_members if path.lower().endswith(".zip") else tar_members
    try:
        for count, image in enumerate(members(path, skipped, also), start=1):
            if count > MAX_MEMBERS:
                raise ImageError(f"The archive contains more than {MAX_MEMBERS:,} files; split it.")
            if image is not None:
                yield image
    except DAMAGED as error:
        text = f"The archive can't be read ({reason(error)}); use an intact copy."
        raise ImageError(text) from error


def _kept(data: bytes) -> bytes:
    return data
