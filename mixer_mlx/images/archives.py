"""Images in .zip and .tar files, read in place: nothing is unpacked to disk."""

import bz2
import gzip
import lzma
import os
import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from threading import Lock
from typing import IO, Any

from mixer_mlx.errors import ConfigError, ImageError

from .decode import LazyImage
from .names import LINK, SPECIAL, Skipped, reason_to_skip
from .pillow import reason
from .zip_names import undecoded, zip_names

MAX_MEMBERS = 2**21
"""Files of any kind in an archive; ImageNet has 1.3 million."""
MAX_MEMBER_BYTES = 2**28
"""Size of an image's file in an archive."""
MAX_RATIO = 1100
"""Unpacked size of a .zip, relative to its own. Deflate reaches 1032; a larger ratio means
overlapping members or a zip bomb."""

# What zipfile and tarfile raise on damaged archives.
_DAMAGED = (
    *(EOFError, LookupError, NotImplementedError, OSError, RuntimeError, ValueError),
    *(lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error),
)
_MAX_LINKS = 8
"""Links are followed through at most this many others."""
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_TAR_OPENERS: dict[bytes, Callable[[str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
}
"""First two bytes -> opener."""


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


def is_archive(path: str) -> bool:
    """Whether `path` is a file with an archive's suffix."""
    return path.lower().endswith(ARCHIVE_SUFFIXES) and os.path.isfile(path)


def images_in(path: str) -> Iterator[LazyImage]:
    """The images in an archive, in its own order, named `path/member`.

    Images are the regular files whose name ends in one of `SUFFIXES`. In a .tar, links to other
    members are read from them, and come last. Other links, hidden files, clutter such as
    `__MACOSX`, absolute names and those with `..` are skipped; nested archives aren't opened. If
    the archive is damaged, the last image is named `path` and raises ImageError when read.
    """
    try:
        yield from _members(path, Skipped())
    except ImageError as error:
        yield LazyImage(path, partial(_fail, str(error)))


def all_images_in(
    path: str, *, memory_bytes: int, skipped: Skipped | None = None
) -> list[StoredImage]:
    """The same images, to be read in any order, any number of times.

    A compressed tar can only be decoded from its beginning, so its images are read at once and kept
    in memory. What is left out is counted in `skipped`. Raises ConfigError for an archive that is
    damaged anywhere, and for a compressed tar whose images exceed `memory_bytes`.
    """
    kept: list[StoredImage] = []
    try:
        room = memory_bytes if _tar_opener(path) else None
        for member in _members(path, Skipped() if skipped is None else skipped):
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


def _members(path: str, skipped: Skipped) -> Iterator[StoredImage]:
    """Raises ImageError."""
    members = _zip_members if path.lower().endswith(".zip") else _tar_members
    try:
        for count, image in enumerate(members(path, skipped), start=1):
            if count > MAX_MEMBERS:
                raise ImageError(f"The archive contains more than {MAX_MEMBERS:,} files; split it.")
            if image is not None:
                yield image
    except _DAMAGED as error:
        text = f"The archive can't be read ({reason(error)}); use an intact copy."
        raise ImageError(text) from error


def _is_image(name: str, skipped: Skipped) -> bool:
    why = reason_to_skip(PurePosixPath(name).parts)  # drops the dot of ./name
    skipped.note(why)
    return why is None


def _image(archive: str, member: str, size: int, read: Callable[[], bytes]) -> StoredImage:
    if size > MAX_MEMBER_BYTES:
        text = f"The image's file has {size:,} bytes; use one of at most {MAX_MEMBER_BYTES:,}."
        read = partial(_fail, text)
    return StoredImage(f"{archive}/{PurePosixPath(member)}", read, size)


def _fail(text: str) -> bytes:
    raise ImageError(text)


def _kept(data: bytes) -> bytes:
    return data


def _zip_members(path: str, skipped: Skipped) -> Iterator[StoredImage | None]:
    """An image or None for each member. The file stays open as long as one of its images."""
    archive, lock = zipfile.ZipFile(path), Lock()
    members = archive.infolist()
    if sum(member.file_size for member in members) > MAX_RATIO * os.path.getsize(path):
        raise ImageError(f"The archive claims over {MAX_RATIO} times its size; create it again.")
    names = zip_names(members)
    skipped.unknown_encoding = next(filter(None, map(undecoded, members)), "")
    for member, name in zip(members, names, strict=True):
        kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if not packed on Unix
        if kind == stat.S_IFDIR or name.endswith("/"):
            yield None
        elif kind not in (0, stat.S_IFREG):
            skipped.note(LINK if kind == stat.S_IFLNK else SPECIAL)
            yield None
        elif _is_image(name, skipped):
            read = partial(_read_zip, archive, lock, member)
            yield _image(path, name, member.file_size, read)
        else:
            yield None


def _read_zip(archive: zipfile.ZipFile, lock: Lock, member: zipfile.ZipInfo) -> bytes:
    if member.flag_bits & 1:
        raise ImageError("The image is encrypted; unpack the archive and give its folder.")
    try:
        with lock:  # zipfile locks reads, but not its count of open members
            file = archive.open(member)
        try:
            return file.read()
        finally:
            with lock:
                file.close()
    except _DAMAGED as error:
        text = f"The archive is damaged at this image ({reason(error)}); use an intact copy."
        raise ImageError(text) from error


def _tar_members(path: str, skipped: Skipped) -> Iterator[StoredImage | None]:
    """An image or None for each member; a compressed tar's images are read along the way."""
    plain = None if _tar_opener(path) else OpenFile(os.open(path, os.O_RDONLY))
    links: dict[str, str] = {}
    with _opened_tar(path) as archive:
        for member in _headers(archive):
            if member.islnk() or member.issym():
                if _is_image(member.name, skipped):
                    links[str(PurePosixPath(member.name))] = _target(member)
                yield None
            elif not member.isreg() or member.issparse():
                skipped.note(None if member.isdir() else SPECIAL)
                yield None
            elif _is_image(member.name, skipped):
                yield _tar_image(path, plain, archive, member, member.name)
            else:
                yield None
    if links:
        yield from _linked(path, plain, links, skipped)


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
    return _image(path, name, member.size, read)


def _under_name(image: StoredImage, name: str) -> StoredImage:
    read = image.read.copy() if isinstance(image.read, _TarMember) else image.read
    return replace(image, name=name, read=read)


def _target(link: tarfile.TarInfo) -> str:
    """The member that a link leads to: from the root if a hard link, else from its folder."""
    if link.islnk():
        return str(PurePosixPath(link.linkname))
    return posixpath.normpath(posixpath.join(posixpath.dirname(link.name), link.linkname))


def _linked(
    path: str, plain: OpenFile | None, links: Mapping[str, str], skipped: Skipped
) -> Iterator[StoredImage]:
    """Links to members as images of their own, found in a second pass; counts the others."""
    names: dict[str, list[str]] = {}
    for name, target in links.items():
        for _ in range(_MAX_LINKS):
            target = links.get(target, target)
        names.setdefault(target, []).append(name)
    with _opened_tar(path) as archive:
        for member in _headers(archive):
            if member.isreg() and not member.issparse():
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
        except _DAMAGED as error:
            text = f"The archive can't be read again ({reason(error)}); leave it unmodified."
            raise ImageError(text) from error
        raise ImageError("The archive was truncated while in use; leave it unmodified.")


def _tar_opener(path: str) -> Callable[[str], Any] | None:
    """The opener of a compressed tar; None for a plain one, and for a .zip."""
    with open(path, "rb") as file:
        return _TAR_OPENERS.get(file.read(2))


@contextmanager
def _opened_tar(path: str) -> Iterator[tarfile.TarFile]:
    with (_tar_opener(path) or partial(open, mode="rb"))(path) as file:
        yield tarfile.TarFile(fileobj=_TarStream(file))  # type: ignore[arg-type]


class _TarStream:
    """What tarfile reads from; it refuses sizes that only malicious headers ask for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._read, self.seek, self.tell = file.read, file.seek, file.tell
        self.block = b""
        """The first block of the last read."""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_MEMBER_BYTES:
            raise tarfile.ReadError("a header of impossible size")
        data = self._read(size)
        self.block = data[: tarfile.BLOCKSIZE]
        return data


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members in order. tarfile takes a damaged header for the end; here it is a ReadError."""
    kept: Any = archive
    while member := archive.next():
        kept.members.clear()  # tarfile's index by name, which would grow
        if archive.offset <= member.offset:
            raise tarfile.ReadError("a header of negative size")
        yield member
    stream: Any = archive.fileobj
    if stream.block.strip(b"\0"):
        raise tarfile.ReadError("a damaged header")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()  # None only for links
