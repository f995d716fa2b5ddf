"""Pictures in .zip and .tar files, read where they lie: nothing is ever unpacked to disk."""

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any

from mixer_mlx.decode import Picture
from mixer_mlx.errors import ImageError
from mixer_mlx.quiet import reason

MAX_MEMBERS = 2**21
"""An archive may hold so many files of whatever kind; ImageNet's 1.3 million are fewer."""
MAX_MEMBER_BYTES = 2**28
"""A picture in an archive may be a file of this size."""
MAX_RATIO = 1100
"""All files of a .zip may have together so many times its size. Deflate reaches 1032: more is a
file that claims the same bytes many times over, or means harm."""

# What the modules for archives raise on damaged ones.
_DAMAGED = (
    *(EOFError, LookupError, NotImplementedError, OSError, RuntimeError, ValueError),
    *(lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error),
)
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_TAR_OPENERS: dict[bytes, Callable[[str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
}
"""By the first two bytes."""


def is_archive(path: str) -> bool:
    """Whether it ends as archives do, and there is a file of that name."""
    return path.lower().endswith((".zip", *_TAR_SUFFIXES)) and os.path.isfile(path)


def pictures_in(path: str, suffixes: set[str]) -> Iterator[Picture]:
    """The pictures in an archive, in its own order, named `path/member`.

    They are the regular files in it that end in one of `suffixes` (lower case; either matches).
    Links, hidden files, what macOS adds (`__MACOSX`), absolute names and those with `..` are
    passed over; archives in the archive are not opened. Where it is broken, a last picture bears
    its name, and raises the ImageError that says so.
    """
    members = _zip_members if path.lower().endswith(".zip") else _tar_members
    try:
        for count, picture in enumerate(members(path, suffixes), start=1):
            if count > MAX_MEMBERS:
                raise ImageError(f"The archive holds more than {MAX_MEMBERS:,} files; split it.")
            if picture is not None:
                yield picture
    except ImageError as error:
        yield Picture(path, partial(_fail, str(error)))
    except _DAMAGED as error:
        text = f"The archive can't be read ({reason(error)}); use an intact copy."
        yield Picture(path, partial(_fail, text))


def _is_wanted(name: str, suffixes: set[str]) -> bool:
    path = PurePosixPath(name)  # without the dot of ./name
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in suffixes and not hidden and not path.is_absolute()


def _picture(archive: str, member: str, size: int, read: Callable[[], bytes]) -> Picture:
    if size > MAX_MEMBER_BYTES:
        text = f"The picture's file has {size:,} bytes; use one of {MAX_MEMBER_BYTES:,} at most."
        read = partial(_fail, text)
    return Picture(f"{archive}/{PurePosixPath(member)}", read)


def _fail(text: str) -> bytes:
    raise ImageError(text)


def _zip_members(path: str, suffixes: set[str]) -> Iterator[Picture | None]:
    """A picture or None for each member. The file is closed when its last picture is dropped."""
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    if sum(member.file_size for member in members) > MAX_RATIO * os.path.getsize(path):
        raise ImageError(f"The archive claims over {MAX_RATIO} times its size; pack it anew.")
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where it wasn't packed on Unix
        if kind in (0, stat.S_IFREG) and _is_wanted(member.filename, suffixes):
            read = partial(_read_zip, archive, member)
            yield _picture(path, member.filename, member.file_size, read)
        else:
            yield None


def _read_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.flag_bits & 1:
        raise ImageError("The picture is encrypted; unpack the archive and name its folder.")
    try:
        return archive.read(member)
    except _DAMAGED as error:
        text = f"The archive is damaged here ({reason(error)}); use an intact copy."
        raise ImageError(text) from error


def _tar_members(path: str, suffixes: set[str]) -> Iterator[Picture | None]:
    """A picture or None for each member; its bytes are read in passing."""
    with _opened_tar(path) as archive:
        for member in _headers(archive):
            if member.isreg() and not member.issparse() and _is_wanted(member.name, suffixes):
                data = _content(archive, member) if member.size <= MAX_MEMBER_BYTES else b""
                read = _TarMember(path, member.offset, data)
                yield _picture(path, member.name, member.size, read)
            else:
                yield None


class _TarMember:
    """Gives the bytes that were read in passing, and keeps them no longer.

    Many pictures may be kept with their results. Whoever wants one again waits until the archive
    has been read up to it.
    """

    def __init__(self, path: str, offset: int, data: bytes) -> None:
        self._path, self._offset = path, offset
        self._data: bytes | None = data

    def __call__(self) -> bytes:
        data, self._data = self._data, None
        return self._again() if data is None else data

    def _again(self) -> bytes:
        try:
            with _opened_tar(self._path) as archive:
                for member in _headers(archive):
                    if member.offset == self._offset:
                        return _content(archive, member)
        except _DAMAGED as error:
            text = f"The archive can't be read again ({reason(error)}); leave it as it was."
            raise ImageError(text) from error
        raise ImageError("The archive has become shorter; leave it as it was.")


@contextmanager
def _opened_tar(path: str) -> Iterator[tarfile.TarFile]:
    with open(path, "rb") as file:
        start = file.read(2)
    with _TAR_OPENERS.get(start, partial(open, mode="rb"))(path) as file:
        yield tarfile.TarFile(fileobj=_TarStream(file))  # type: ignore[arg-type]


class _TarStream:
    """What tarfile reads from; it refuses what only headers that mean harm ask for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._read, self.seek, self.tell = file.read, file.seek, file.tell
        self.block = b""
        """The start of what was read last."""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_MEMBER_BYTES:
            raise tarfile.ReadError("a header of impossible size")
        data = self._read(size)
        self.block = data[: tarfile.BLOCKSIZE]
        return data


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members in order. tarfile takes a broken header for the end; here it is a ReadError."""
    kept: Any = archive
    while member := archive.next():
        kept.members.clear()  # all so far, to find them by name: it would grow
        if archive.offset <= member.offset:
            raise tarfile.ReadError("a header of negative size")
        yield member
    stream: Any = archive.fileobj
    if stream.block.strip(b"\0"):
        raise tarfile.ReadError("a broken header")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()  # None for links only
