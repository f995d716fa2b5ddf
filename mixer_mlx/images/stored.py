"""Images stored in another file, as archives and Parquet files hold them."""

import lzma
import os
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from mixer_mlx.errors import ImageError

from .decode import LazyImage
from .names import UNSAFE, Skipped, reason_to_skip

MAX_MEMBER_BYTES = 2**28
"""Size of an image's file in an archive."""

# What zipfile and tarfile raise on damaged archives.
DAMAGED = (
    *(EOFError, LookupError, MemoryError, NotImplementedError, OSError, OverflowError),
    *(RuntimeError, ValueError),
    *(lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error),
)

_MAX_LINKS = 8
"""Links are followed through at most this many others."""


@dataclass(frozen=True)
class StoredImage(LazyImage):
    """An image stored in another file; such images may be read in any order, and in threads.

    `size` is that of the image's own file in bytes, or of the file that contains it if the former
    isn't known without reading.
    """

    size: int = 0


class OpenFile:
    """An open file that threads read at any offset; closed when garbage-collected."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size, self._time = self._state()

    def _state(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def changed(self) -> bool:
        """Whether the file was modified since it was opened."""
        return self._state() != (self.size, self._time)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes, or fewer at the end of the file. Raises OSError."""
        return os.pread(self._descriptor, size, offset)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of `data` at `offset`. Raises OSError."""
        rest = memoryview(data)
        while rest:
            count = os.pwrite(self._descriptor, rest, offset)
            rest, offset = rest[count:], offset + count


def is_wanted(name: str, skipped: Skipped, also: Collection[str]) -> bool:
    """Whether a member is an image, or a file of a name in `also`; counts others in `skipped`."""
    parts = PurePosixPath(name).parts  # drops the dot of ./name
    why = reason_to_skip(parts)
    if parts and parts[-1] in also and why not in ("", UNSAFE):
        return True
    skipped.note(why)
    return why is None


def stored_image(archive: str, member: str, size: int, read: Callable[[], bytes]) -> StoredImage:
    """An image in an archive; one that is too large has its error in place of its bytes."""
    if size > MAX_MEMBER_BYTES:
        text = f"The image's file has {size:,} bytes; use one of at most {MAX_MEMBER_BYTES:,}."
        read = partial(fail, text)
    return StoredImage(f"{archive}/{PurePosixPath(member)}", read, size)


def fail(text: str) -> bytes:
    """Raise ImageError, as the `read` of an image that can't be read."""
    raise ImageError(text)


def link_target(name: str, target: str) -> str:
    """The member that the symbolic link `name` leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def followed(links: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Links and their targets -> each link and what it leads to in the end, if a few links away."""
    for name, target in links.items():
        for _ in range(_MAX_LINKS):
            target = links.get(target, target)
        yield name, target
