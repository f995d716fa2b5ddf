"""Open files of others safely: no FIFO blocks, and no link in an output's place is followed."""

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """A regular file, opened for reading. Raises OSError, also for a FIFO or a device."""
    # Without O_NONBLOCK, opening a FIFO would wait for a writer forever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    return os.fdopen(_regular(descriptor, path), "rb")


def open_output(path: Path, mode: str, buffering: int = -1) -> BinaryIO:
    """A file to write in place, in mode "wb", "ab" or "r+b" (made if missing, kept if not).

    Raises OSError, also for a link, which may lead to a file outside of the folder.
    """
    flags = {
        "wb": os.O_WRONLY | os.O_TRUNC,
        "ab": os.O_WRONLY | os.O_APPEND,
        "r+b": os.O_RDWR,
    }[mode]
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link; remove it", str(path))
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = _regular(os.open(path, flags, 0o666), path)
    return os.fdopen(descriptor, mode, buffering)  # type: ignore[return-value]


MAX_NAME_BYTES = 255
"""Of a file's name, on most file systems."""


def beside(path: Path, after: str, before: str = "") -> Path:
    """The path of a file that belongs to `path`, and stands beside it: before + name + after.

    A name that would be too long is cut, with a checksum of the whole.
    """
    name, most = path.name, MAX_NAME_BYTES - len(before) - len(after)
    if len(os.fsencode(name)) > most:
        checksum = hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
        name = os.fsencode(name)[: most - 13].decode("utf-8", "ignore") + "~" + checksum
    return path.with_name(f"{before}{name}{after}")


def _regular(descriptor: int, path: str | os.PathLike[str]) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device", os.fspath(path))
    return descriptor


def lock(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed; False if another process has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


@contextmanager
def locked_folder(path: Path) -> Iterator[bool]:
    """Lock a folder for the block; yields False if another process has. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)
