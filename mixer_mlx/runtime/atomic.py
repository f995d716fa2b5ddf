"""Files and folders that are written whole or not at all.

Both are written under a temporary name that starts with a dot, in the same folder, synced to disk
and then renamed. A crash can leave a temporary name behind, but never a partial result.
"""

import ctypes
import errno
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mixer_mlx.errors import MixerError

from .files import beside
from .macos import entries


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` if the block succeeds."""
    temporary = _beside(path)
    temporary.open("xb").close()  # a file of our own, never one that a link leads to
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written_file(path: Path, error: type[MixerError] = MixerError) -> Iterator[Path]:
    """The same for a user's file: OSError is raised as `error`."""
    try:
        with replacing_file(path) as temporary:
            yield temporary
    except OSError as refused:
        raise error(f"{path} can't be written: {refused.strerror}.") from refused


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill; it replaces `path` if the block succeeds."""
    temporary = _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        for written in [*entries(temporary), temporary]:
            sync(written)
        if not path.exists():
            temporary.rename(path)
        elif not _swap(temporary, path):
            old = _beside(path)
            path.rename(old)
            temporary.rename(path)
            temporary = old
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network and FUSE file systems can't sync folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    return beside(path, f".{uuid.uuid4().hex[:12]}", ".")


def _swap(one: Path, other: Path) -> bool:
    """Exchange two paths atomically; False if the system or the file system can't."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    if sys.platform == "darwin":
        rename_swap = 2
        return bool(libc.renamex_np(*names, rename_swap) == 0)
    if not hasattr(libc, "renameat2"):
        return False
    at_cwd, rename_exchange = -100, 2
    return bool(libc.renameat2(at_cwd, names[0], at_cwd, names[1], rename_exchange) == 0)
