"""Read a .zip file's members in bounded memory, whatever they claim, with their checksum.

`zipfile` unpacks bzip2 and LZMA without a bound (2 kB can become gigabytes in one call), and checks
the CRC-32 only of a member that is read to the end of its data.
"""

import bz2
import copy
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from typing import IO

_CHUNK = 2**16


class MemberFile(io.RawIOBase):
    """The content of a member, read once: exactly as many bytes as it claims.

    Reading raises BadZipFile for content of another size, or with another CRC-32 than claimed, and
    whatever the decompressors raise.
    """

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        raw = copy.copy(member)  # the packed bytes, as if they were stored without packing
        raw.compress_type, raw.file_size = zipfile.ZIP_STORED, member.compress_size
        raw.CRC = None  # type: ignore[assignment]  # zipfile then checks none
        self._raw = archive.open(raw)
        try:
            self._some = _reader(self._raw, member)
        except BaseException:
            self._raw.close()
            raise
        self._member, self._left, self._crc = member, member.file_size, 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._member.file_size - self._left

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._left:
            return 0
        data = self._some(min(len(buffer), self._left))
        if not data:
            raise zipfile.BadZipFile(f"{self._member.filename} is shorter than it claims")
        buffer[: len(data)] = data
        self._left -= len(data)
        self._crc = zlib.crc32(data, self._crc)
        if not self._left:
            self._check_end()
        return len(data)

    def _check_end(self) -> None:
        if self._some(1):
            raise zipfile.BadZipFile(f"{self._member.filename} is longer than it claims")
        if self._crc != self._member.CRC:
            raise zipfile.BadZipFile(f"Bad CRC-32 for {self._member.filename}")

    def close(self) -> None:
        self._raw.close()
        super().close()


Some = Callable[[int], bytes]
"""At most that many more bytes; b"" at the end."""


def _reader(raw: IO[bytes], member: zipfile.ZipInfo) -> Some:
    if member.compress_type == zipfile.ZIP_STORED:
        return raw.read
    if member.compress_type == zipfile.ZIP_DEFLATED:
        return _inflating(raw)
    if member.compress_type == zipfile.ZIP_BZIP2:
        return _decompressing(raw, bz2.BZ2Decompressor())
    if member.compress_type == zipfile.ZIP_LZMA:
        return _decompressing(raw, _lzma(raw, member.file_size))
    raise NotImplementedError("an unknown compression")


def _inflating(raw: IO[bytes]) -> Some:
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)

    def some(size: int) -> bytes:
        while not decompressor.eof:
            packed = decompressor.unconsumed_tail or raw.read(_CHUNK)
            if data := decompressor.decompress(packed, size):
                return data
            if not packed:
                break
        return b""

    return some


def _decompressing(
    raw: IO[bytes], decompressor: bz2.BZ2Decompressor | lzma.LZMADecompressor
) -> Some:
    def some(size: int) -> bytes:
        while not decompressor.eof:
            packed = raw.read(_CHUNK) if decompressor.needs_input else b""
            if not packed and decompressor.needs_input:
                break
            if data := decompressor.decompress(packed, size):
                return data
        return b""

    return some


def _lzma(raw: IO[bytes], size: int) -> lzma.LZMADecompressor:
    """From the properties before the data: version, length, then lc, lp, pb and dictionary size.

    The dictionary, which is allocated at once, needn't be larger than what comes out.
    """
    header = raw.read(9)
    if len(header) < 9 or header[2:4] != b"\x05\0":
        raise zipfile.BadZipFile("its LZMA properties are damaged")
    rest, lc = divmod(header[4], 9)
    pb, lp = divmod(rest, 5)
    dictionary = min(int.from_bytes(header[5:9], "little"), size)
    filters = [
        {"id": lzma.FILTER_LZMA1, "dict_size": max(dictionary, 4096), "lc": lc, "lp": lp, "pb": pb}
    ]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
