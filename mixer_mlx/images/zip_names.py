"""Names in .zip files, as packers of other systems write them."""

import unicodedata
import zipfile
from collections.abc import Sequence

_UTF8 = 0x800
"""The flag of a name in UTF-8; names without it should be in code page 437."""


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
