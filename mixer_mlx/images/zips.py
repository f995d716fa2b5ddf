"""Images in .zip files, and their names as packers of other systems write them."""

import os
import stat
import unicodedata
import zipfile
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from threading import Lock

from mixer_mlx.errors import ImageError
from mixer_mlx.runtime.unzip import MemberFile

from .names import LINK, SPECIAL, Skipped
from .pillow import reason
from .stored import DAMAGED, StoredImage, followed, is_wanted, link_target, stored_image

MAX_RATIO = 1100
"""Unpacked size of a .zip, relative to its own. Deflate reaches 1032; a larger ratio means
overlapping members or a zip bomb."""

MAX_PATH = 4096
"""Bytes of a path that a link leads to."""

_UTF8 = 0x800
"""The flag of a name in UTF-8; names without it should be in code page 437."""


def zip_members(path: str, skipped: Skipped, also: Collection[str]) -> Iterator[StoredImage | None]:
    """An image or None for each member; links to members last.

    The file stays open as long as one of its images.
    """
    archive, lock = zipfile.ZipFile(path), Lock()
    members = archive.infolist()
    if sum(member.file_size for member in members) > MAX_RATIO * os.path.getsize(path):
        raise ImageError(f"The archive claims over {MAX_RATIO} times its size; create it again.")
    names = zip_names(members)
    skipped.unknown_encoding = next(filter(None, map(undecoded, members)), "")
    links: dict[str, str] = {}
    for member, name in zip(members, names, strict=True):
        kind = _kind(member, name)
        if kind == stat.S_IFLNK:
            if is_wanted(name, skipped, also):
                links[_normal(name)] = _target(archive, lock, member, name)
            yield None
        elif kind != stat.S_IFREG:
            skipped.note(None if kind == stat.S_IFDIR else SPECIAL)
            yield None
        elif is_wanted(name, skipped, also):
            read = partial(_read, archive, lock, member)
            yield stored_image(path, name, member.file_size, read)
        else:
            yield None
    files = dict(zip(map(_normal, names), members, strict=True)) if links else {}
    for name, target in followed(links):
        end = files.get(target)
        if end is not None and _kind(end, end.filename) == stat.S_IFREG:
            read = partial(_read, archive, lock, end)
            yield stored_image(path, name, end.file_size, read)
        else:
            skipped.note(LINK)


def _kind(member: zipfile.ZipInfo, name: str) -> int:
    """The kind of file, as in `stat`; what wasn't packed on Unix is a file or a folder."""
    if name.endswith("/"):
        return stat.S_IFDIR
    return stat.S_IFMT(member.external_attr >> 16) or stat.S_IFREG


def _normal(name: str) -> str:
    return str(PurePosixPath(name))


def _target(archive: zipfile.ZipFile, lock: Lock, link: zipfile.ZipInfo, name: str) -> str:
    """The member that a link leads to, which is its content; "" if that can't be read."""
    if link.file_size > MAX_PATH:
        return ""
    try:
        return link_target(name, os.fsdecode(_read(archive, lock, link)))
    except ImageError:
        return ""


def _read(archive: zipfile.ZipFile, lock: Lock, member: zipfile.ZipInfo) -> bytes:
    if member.flag_bits & 1:
        raise ImageError("The image is encrypted; unpack the archive and give its folder.")
    try:
        with lock:  # zipfile locks reads, but not its count of open members
            file = MemberFile(archive, member)
        try:
            return file.read()
        finally:
            with lock:
                file.close()
    except DAMAGED as error:
        text = f"The archive is damaged at this image ({reason(error)}); use an intact copy."
        raise ImageError(text) from error


def zip_names(members: Sequence[zipfile.ZipInfo]) -> list[str]:
    """The names of members, with "/" between folders.

    Names in UTF-8 are read as such without the flag, too. If no name has a slash inside, packed by
    .NET on Windows, backslashes separate.
    """
    names = [_decoded(member) for member in members]
    if any("/" in name[:-1] for name in names):
        return names
    return [name.replace("\\", "/") for name in names]


def _bytes(member: zipfile.ZipInfo) -> bytes | None:
    """The bytes of a name that isn't flagged as UTF-8, nor ASCII."""
    if member.flag_bits & _UTF8 or member.filename.isascii():
        return None
    try:
        return member.filename.encode("cp437")
    except UnicodeEncodeError:  # it comes from another field, in UTF-8
        return None


def _decoded(member: zipfile.ZipInfo) -> str:
    try:
        return (_bytes(member) or b"").decode("utf-8") or member.filename
    except UnicodeDecodeError:
        return member.filename


def undecoded(member: zipfile.ZipInfo) -> str:
    """A name in an unknown encoding: neither UTF-8 nor Latin text in code page 437; else ""."""
    if _bytes(member) is None or _decoded(member) != member.filename:
        return ""
    foreign = (char for char in member.filename if not char.isascii())
    latin = all(unicodedata.name(char, "").startswith("LATIN") for char in foreign)
    pairs = zip(member.filename, member.filename[1:], strict=False)
    mixed = any(a.islower() and b.isupper() and not (a + b).isascii() for a, b in pairs)
    return "" if latin and not mixed else member.filename  # "öLîó" is Shift JIS
