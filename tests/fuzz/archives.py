"""Archives of images, and lists of names as they come on stdin."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from random import Random

from fuzz.images import IMAGES
from fuzz.mutate import mutate
from fuzz.target import Target, written

from mixer_mlx.errors import ImageError
from mixer_mlx.images.decode import LazyImage, decode
from mixer_mlx.images.find import find_images, read_names

_NAMES = (
    "a.png",
    "b/c.jpg",
    "b/c.jpg",
    "../d.png",
    "/e.png",
    ".f.png",
    "g.txt",
    "x" * 90 + ".png",
)


@cache
def _members() -> dict[str, bytes]:
    png, jpeg = IMAGES["png"]()[0], IMAGES["jpeg"]()[1]
    return {name: jpeg if name.endswith("jpg") else png for name in ("a.png", "b/c.jpg", "d.png")}


def _zip(members: dict[str, bytes], packing: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, packing)
    return file.getvalue()


def _make_zip(chance: Random) -> bytes:
    """A damaged archive, or an intact one with damaged names and images."""
    packing = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    if chance.random() < 0.7:
        return mutate(chance, [_zip(_members(), packing)])
    return _zip(_renamed(chance), packing)


def _renamed(chance: Random) -> dict[str, bytes]:
    return {
        chance.choice(_NAMES): mutate(chance, [data]) if chance.random() < 0.3 else data
        for data in _members().values()
    }


def _tar(members: dict[str, bytes], style: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=style) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo("link.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    return file.getvalue()


def _with_sums(data: bytes) -> bytes:
    """A tar whose first headers have the checksums of what is in them now."""
    fixed = bytearray(data)
    for at in range(0, len(fixed) - 511, 512):
        if fixed[at + 257 : at + 262] == b"ustar":
            fixed[at + 148 : at + 156] = b" " * 8
            fixed[at + 148 : at + 156] = b"%06o\0 " % sum(fixed[at : at + 512])
    return bytes(fixed)


def _make_tar(chance: Random) -> bytes:
    """A damaged archive, packed or not; damaged before it was packed, or after."""
    style = chance.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    if chance.random() < 0.3:
        return _tar(_renamed(chance), style)
    data = mutate(chance, [_tar(_members(), style)])
    if chance.random() < 0.7:
        data = _with_sums(data)
    if chance.random() < 0.2:
        # Without the time that gzip notes: a case depends on seed and number alone.
        pack = chance.choice((partial(gzip.compress, mtime=0), bz2.compress, lzma.compress))
        return mutate(chance, [pack(data)]) if chance.random() < 0.5 else pack(data)
    return data


def _decode_all(images: Iterable[str | LazyImage]) -> None:
    """Raises the first error when all were tried."""
    first: ImageError | None = None
    for image in images:
        try:
            decode(image)
        except ImageError as error:
            first = first or error
    if first is not None:
        raise first


def _run_zip(data: bytes, folder: Path) -> None:
    _decode_all(find_images([written(data, folder, "images.zip")]))


def _run_tar(data: bytes, folder: Path) -> None:
    _decode_all(find_images([written(data, folder, "images.tar")]))


_LISTS = [b"a.png\r\na.png\n", b"a.png\0a.png\0", b"a.png\n\xff\xfe.png\n" + b"x" * 300]


def _run_list(data: bytes, folder: Path) -> None:
    written(_members()["a.png"], folder, "a.png")
    for null in (False, True):
        paths = (os.path.join(folder, name) for name in read_names(io.BytesIO(data), null=null))
        files = (path for path in paths if not os.path.isdir(path))
        _decode_all(find_images(["-"], listed=files))


TARGETS = {
    "zip": Target(_make_zip, _run_zip),
    "tar": Target(_make_tar, _run_tar),
    "list of names": Target(lambda chance: mutate(chance, _LISTS), _run_list),
}
