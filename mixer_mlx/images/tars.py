"""Images in .tar files, compressed or not."""

import bz2
import gzip
import lzma
import os
import re
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any

from mixer_mlx.errors import ImageError

from .names import LINK, SPECIAL, Skipped
from .pillow import reason
from .stored import (
    DAMAGED,
    MAX_MEMBER_BYTES,
    OpenFile,
    StoredImage,
    followed,
    is_wanted,
    link_target,
    stored_image,
)

MAX_HEADER_BYTES = 2**20
"""Size of a long name, or of a member's other attributes."""
MIN_HEADERS_BYTES, MAX_HEADERS_RATIO = 2**22, 4
"""Size of all of these together: the larger of this and a multiple of the archive's size. (Packed,
they take a thousandth.)"""
MAX_HEADER_BLOCKS = 1024
"""Reads that one member's headers may take."""
_EXTENDED_HEADERS = (b"x", b"g", b"X", b"L", b"K")
_DIGITS = re.compile(rb"\d{100}")
_SPARSE, _NO_SPARSE = b"GNU.sparse.", b"GNU-sparse-"
_TAR_OPENERS: dict[bytes, Callable[[str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
}
"""First two bytes -> opener."""


def tar_members(path: str, skipped: Skipped, also: Collection[str]) -> Iterator[StoredImage | None]:
    """An image or None for each member; a compressed tar's images are read along the way."""
    plain = None if tar_opener(path) else OpenFile(os.open(path, os.O_RDONLY))
    links: dict[str, str] = {}
    with _opened_tar(path) as archive:
        for member in _headers(archive):
            if member.islnk() or member.issym():
                if is_wanted(member.name, skipped, also):
                    links[str(PurePosixPath(member.name))] = _target(member)
                yield None
            elif not member.isreg() or _is_sparse(member):
                skipped.note(None if member.isdir() else SPECIAL)
                yield None
            elif is_wanted(member.name, skipped, also):
                yield _tar_image(path, plain, archive, member, member.name)
            else:
                yield None
    if links:
        yield from _linked(path, plain, links, skipped)


def _is_sparse(member: tarfile.TarInfo) -> bool:
    return member.issparse() or any(
        key.startswith(_NO_SPARSE.decode()) for key in member.pax_headers
    )


def _tar_image(
    path: str, plain: OpenFile | None, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str
) -> StoredImage:
    """The image at `member`, under `name`."""
    read: Callable[[], bytes]
    if plain is not None:
        if member.offset_data + member.size > plain.size:
            raise tarfile.ReadError("unexpected end of data")
        read = partial(_read_tar, plain, member.offset_data, member.size)
    else:
        data = _content(archive, member) if member.size <= MAX_MEMBER_BYTES else b""
        read = _TarMember(path, member.offset, data)
    return stored_image(path, name, member.size, read)


def _under_name(image: StoredImage, name: str) -> StoredImage:
    read = image.read.copy() if isinstance(image.read, _TarMember) else image.read
    return replace(image, name=name, read=read)


def _target(link: tarfile.TarInfo) -> str:
    """The member that a link leads to: from the root if a hard link, else from its folder."""
    if link.islnk():
        return str(PurePosixPath(link.linkname))
    return link_target(link.name, link.linkname)


def _linked(
    path: str, plain: OpenFile | None, links: Mapping[str, str], skipped: Skipped
) -> Iterator[StoredImage]:
    """Links to members as images of their own, found in a second pass; counts the others."""
    names: dict[str, list[str]] = {}
    for name, target in followed(links):
        names.setdefault(target, []).append(name)
    with _opened_tar(path) as archive:
        for member in _headers(archive):
            if member.isreg() and not _is_sparse(member):
                wanted = names.pop(str(PurePosixPath(member.name)), None)
                if wanted:
                    image = _tar_image(path, plain, archive, member, wanted[0])
                    yield from (_under_name(image, f"{path}/{name}") for name in wanted)
    skipped.note(LINK, sum(map(len, names.values())))


def _read_tar(file: OpenFile, offset: int, size: int) -> bytes:
    try:
        if file.changed():
            raise ImageError("The archive was modified while in use; leave it unmodified.")
        return file.read(offset, size)
    except OSError as error:
        text = f"The archive can't be read ({reason(error)}); use an intact copy."
        raise ImageError(text) from error


class _TarMember:
    """Returns the bytes that were read along the way, and keeps them no longer.

    A caller may keep many images with their results, so memory would grow. A second call reads the
    archive again, up to the image.
    """

    def __init__(self, path: str, offset: int, data: bytes | None) -> None:
        self._path, self._offset, self._data = path, offset, data

    def copy(self) -> "_TarMember":
        """The same member, to be read once more."""
        return _TarMember(self._path, self._offset, self._data)

    def __call__(self) -> bytes:
        data, self._data = self._data, None
        return self._again() if data is None else data

    def _again(self) -> bytes:
        try:
            with _opened_tar(self._path) as archive:
                for member in _headers(archive):
                    if member.offset == self._offset:
                        return _content(archive, member)
        except DAMAGED as error:
            text = f"The archive can't be read again ({reason(error)}); leave it unmodified."
            raise ImageError(text) from error
        raise ImageError("The archive was truncated while in use; leave it unmodified.")


def tar_opener(path: str) -> Callable[[str], Any] | None:
    """The opener of a compressed tar; None for a plain one, and for a .zip."""
    with open(path, "rb") as file:
        return _TAR_OPENERS.get(file.read(2))


@contextmanager
def _opened_tar(path: str) -> Iterator[tarfile.TarFile]:
    room = max(MIN_HEADERS_BYTES, MAX_HEADERS_RATIO * os.path.getsize(path))
    with (tar_opener(path) or partial(open, mode="rb"))(path) as file:
        yield tarfile.TarFile(fileobj=_TarStream(file, room))  # type: ignore[arg-type]


class _TarStream:
    """What tarfile reads from; it refuses what only malicious headers ask for."""

    def __init__(self, file: IO[bytes], room: int) -> None:
        self._read, self.seek, self.tell = file.read, file.seek, file.tell
        self._room = room  # for extended headers
        self.block = b""
        """The first block of the last read."""
        self.reads = 0
        """Since the current member's first header."""

    def read(self, size: int) -> bytes:
        extends = self.block[257:262] == b"ustar" and self.block[156:157] in _EXTENDED_HEADERS
        self.reads += 1
        if not 0 <= size <= (MAX_HEADER_BYTES if extends else MAX_MEMBER_BYTES):
            raise tarfile.ReadError("a header of impossible size")
        if self.reads > MAX_HEADER_BLOCKS:
            raise tarfile.ReadError("a header of too many blocks")
        self._room -= size * extends
        if self._room < 0:
            raise tarfile.ReadError("headers of too many bytes")
        data = self._read(size)
        self.block = data[: tarfile.BLOCKSIZE]
        return _checked_header(data) if extends else data


def _checked_header(data: bytes) -> bytes:
    """Refuses what takes tarfile long; without what makes it expand a sparse file's map.

    Before Python 3.11.10, it takes time that grows with the square of a run of digits
    (CVE-2024-6232).
    """
    if _DIGITS.search(data):
        raise tarfile.ReadError("a header of too many digits")
    return data.replace(_SPARSE, _NO_SPARSE)


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members in order. tarfile takes a damaged header for the end; here it is a ReadError."""
    kept: Any = archive
    while member := archive.next():
        kept.members.clear()  # tarfile's index by name, which would grow
        kept.fileobj.reads = 0
        if archive.offset <= member.offset:
            raise tarfile.ReadError("a header of negative size")
        yield member
    stream: Any = archive.fileobj
    if stream.block.strip(b"\0"):
        raise tarfile.ReadError("a damaged header")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()  # None only for links
