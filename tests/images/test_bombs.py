"""Files that claim, or unpack to, more than they should: little memory, and one sentence."""

import gzip
import io
import re
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixer_mlx.convert.weights import npz
from mixer_mlx.data.dataset import Dataset
from mixer_mlx.data.loader import DecodedImages
from mixer_mlx.errors import ConfigError, ImageError, SourceError
from mixer_mlx.images import tars
from mixer_mlx.images.archives import all_images_in
from mixer_mlx.images.decode import LazyImage, decode
from mixer_mlx.images.find import find_images
from mixer_mlx.images.formats import open_image
from mixer_mlx.images.names import SPECIAL, Skipped

METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
MIB = 2**20


@contextmanager
def little_memory(mib: int = 2) -> Iterator[None]:
    """What Python allocates in the block stays below."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mib * MIB
    finally:
        tracemalloc.stop()


def zipped(path: Path, content: bytes, method: int, name: str = "a.png", **claims: int) -> Path:
    """One member; `size` and `crc` are written in place of the right ones."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, content)
    data = bytearray(path.read_bytes())
    for signature, crc, size in ((b"PK\x03\x04", 14, 22), (b"PK\x01\x02", 16, 24)):
        start = data.index(signature)
        for key, offset in (("crc", crc), ("size", size)):
            if key in claims:
                data[start + offset : start + offset + 4] = struct.pack("<I", claims[key])
    path.write_bytes(data)
    return path


def content(path: Path) -> bytes:
    (image,) = find_images([path])
    assert isinstance(image, LazyImage)
    return image.read()


@pytest.mark.parametrize("method", METHODS)
def test_a_member_of_a_zip_is_what_it_claims(method: int, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(300_000) + bytes(200_000)
    path = tmp_path / "a.zip"
    assert content(zipped(path, data, method)) == data
    assert content(zipped(path, b"", method)) == b""
    if method != zipfile.ZIP_STORED:  # its size is that of its data
        for size, what in ((len(data) - 1, "longer"), (100, "longer"), (len(data) + 1, "shorter")):
            with pytest.raises(ImageError, match=f"a.png is {what} than it claims"):
                content(zipped(path, data, method, size=size))
    with pytest.raises(ImageError, match="Bad CRC-32"):
        content(zipped(path, data, method, crc=1))


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_member_that_claims_little_takes_little(method: int, tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", bytes(16 * MIB), method, size=100)
    with little_memory(), pytest.raises(ImageError, match="longer than it claims"):
        content(path)


def test_a_dictionary_of_lzma_takes_no_more_than_the_claim(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", b"x" * 1000, zipfile.ZIP_LZMA)
    data = bytearray(path.read_bytes())
    properties = data.index(b"a.png") + 5
    assert data[properties + 2 : properties + 4] == b"\x05\0"
    data[properties + 5 : properties + 9] = b"\xff\xff\xff\xff"  # 4 GiB
    path.write_bytes(data)
    with little_memory():
        assert content(path) == b"x" * 1000
    data[properties + 2] = 4
    path.write_bytes(data)
    with pytest.raises(ImageError, match="LZMA properties are damaged"):
        content(path)


@pytest.mark.parametrize("method", METHODS)
def test_an_array_is_what_it_claims(method: int, tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.arange(1000, dtype=np.float32))
    path = zipped(tmp_path / "a.npz", file.getvalue(), method, "w.npy")
    assert npz.read_header(path)["w"].shape == (1000,)
    np.testing.assert_array_equal(npz.read_arrays(path)["w"], np.arange(1000))
    zipped(path, file.getvalue(), method, "w.npy", crc=1)
    with pytest.raises(SourceError, match="Bad CRC-32"):
        npz.read_arrays(path)
    if method != zipfile.ZIP_STORED:
        size = len(file.getvalue())
        zipped(path, file.getvalue() + bytes(16 * MIB), method, "w.npy", size=size)
        with little_memory(), pytest.raises(SourceError, match="longer than it claims"):
            npz.read_arrays(path)


def pax(**records: str) -> bytes:
    """An extended header with these records."""
    text = b""
    for key, value in records.items():
        line = f" {key.replace('_', '.')}={value}\n".encode()
        size = len(line) + len(str(len(line) + len(str(len(line)))))
        text += str(size).encode() + line
    info = tarfile.TarInfo("extended")
    info.type, info.size = tarfile.XHDTYPE, len(text)
    return info.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512)


def member(data: bytes, name: str = "a.png") -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def tar_error(path: Path, data: bytes) -> str:
    path.write_bytes(data + bytes(1024))
    with little_memory(), pytest.raises(ConfigError) as caught:
        all_images_in(str(path), memory_bytes=0)
    return str(caught.value)


def test_headers_of_a_tar_that_take_long(tmp_path: Path) -> None:
    """Python before 3.11.10 takes 14 s for 80 kB of digits, four times that for twice as many."""
    path = tmp_path / "a.tar"
    assert "too many digits" in tar_error(path, pax(comment="1" * 80_000) + member(b"x"))
    huge = tarfile.TarInfo("extended")
    huge.type, huge.size = tarfile.XHDTYPE, tars.MAX_HEADER_BYTES + 1
    assert "impossible size" in tar_error(path, huge.tobuf() + bytes(MIB + 1024))
    sparse = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
    sparse[156:157], sparse[482] = tarfile.GNUTYPE_SPARSE, 1  # more blocks of the map follow
    sparse[148:156] = f"{sum(sparse[:148]) + 256 + sum(sparse[156:]):06o}\0 ".encode()
    more = b"00000000001\0" * 42 + b"\1" + bytes(7)
    assert "too many blocks" in tar_error(path, bytes(sparse) + more * (tars.MAX_HEADER_BLOCKS + 1))


def test_a_map_of_a_sparse_file_is_not_expanded(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    text = b"60000\n" + b"0\n1\n" * 15_000
    sparse = pax(GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_name="s.png")
    path.write_bytes(sparse + member(text, "s.png") + member(b"x") + bytes(1024))
    skipped = Skipped()
    with little_memory(1):
        (image,) = all_images_in(str(path), memory_bytes=0, skipped=skipped)
    assert (image.read(), skipped) == (b"x", {SPECIAL: 1})


def test_headers_of_a_packed_tar_are_bounded_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each within the limits, they pack to a thousandth: 0.4 MB took over a minute."""
    monkeypatch.setattr(tars, "MIN_HEADERS_BYTES", 50_000)
    path = tmp_path / "a.tar.gz"
    one = pax(comment=("1" * 90 + " ") * 100) + tarfile.TarInfo("b.txt").tobuf()
    path.write_bytes(gzip.compress(one * 3 + member(b"x") + bytes(1024)))
    assert len(all_images_in(str(path), memory_bytes=1)) == 1
    path.write_bytes(gzip.compress(one * 10 + member(b"x") + bytes(1024)))
    with pytest.raises(ConfigError, match="headers of too many bytes"):
        all_images_in(str(path), memory_bytes=1)


def progressive(scans: int, before: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan is repeated, with bytes before each."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    *_, last = re.finditer(rb"\xff\xda", data)
    first, scan = data[: last.start()], data[last.start() : -2]
    return first + (before + scan) * (scans - first.count(b"\xff\xda")) + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_refused() -> None:
    assert decode(io.BytesIO(progressive(20))).size == (64, 64)
    after_the_end = progressive(20) + b"\xff\xda" * 1000  # as of a video that a phone appends
    assert decode(io.BytesIO(after_the_end)).size == (64, 64)
    with pytest.raises(ImageError, match="a JPEG of over 100 scans"):
        decode(io.BytesIO(progressive(101)))
    # TEM has no length; what looks like one would hide the scan behind it.
    with pytest.raises(ImageError, match="a JPEG of over 100 scans"):
        decode(io.BytesIO(progressive(101, b"\xff\x01\x00\x09")))


def test_scans_of_a_large_jpeg_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixer_mlx.images.formats.MAX_SCAN_PIXELS", 20 * 64 * 64 + 100)
    assert decode(io.BytesIO(progressive(20))).size == (64, 64)
    with pytest.raises(ImageError, match="a JPEG of over 20 scans"):
        decode(io.BytesIO(progressive(21)))


def test_errors_keep_no_pixels(tmp_path: Path) -> None:
    """The frames of a traceback hold the image: 180 MiB for each cut photo of 48 megapixels."""
    whole = io.BytesIO()
    Image.new("RGB", (64, 64)).save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:-100])
    dataset = Dataset(("a",), (tmp_path / "cut.jpg",), np.zeros(1, np.int32))
    images = DecodedImages(dataset, lambda *_: None)
    assert images[0] is None
    error = images.unreadable[0]
    assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


def test_a_canvas_that_a_few_bytes_claim() -> None:
    """A GIF whose only frame has one pixel took 1.25 GiB."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0\x3b"
    for side, fits in ((4096, True), (16_000, False)):
        gif = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0" * 6 + frame
        if fits:
            assert open_image(io.BytesIO(gif)).size == (side, side)
            continue
        with pytest.raises(ImageError, match=r"claims 16000x16000 pixels in a file of \d+ bytes"):
            decode(io.BytesIO(gif))


def test_an_image_of_one_colour_may_be_small() -> None:
    file = io.BytesIO()
    Image.new("1", (10_000, 5_000)).save(file, "PNG")
    assert open_image(file).size == (10_000, 5_000)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    """8 x 8, with chunks before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(72)))
    return b"\x89PNG\r\n\x1a\n" + b"".join((header, *chunks, pixels, chunk(b"IEND", b"")))


def tiff(*tags: tuple[int, int, int, int], next_page: int = 0) -> bytes:
    """8 x 8 grey pixels, at 8; further or other tags: number, type, count, value."""
    own = [
        (256, 8),
        (257, 8),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 8),
        (279, 64),
    ]
    entries = {tag: (tag, 4, 1, value) for tag, value in own} | {tag[0]: tag for tag in tags}
    packed = b"".join(struct.pack("<HHII", *entry) for _, entry in sorted(entries.items()))
    directory = struct.pack("<H", len(entries)) + packed + struct.pack("<I", next_page)
    return struct.pack("<2sHI", b"II", 42, 72) + bytes(64) + directory


def gif(side: int, *frames: tuple[int, int, int, int]) -> bytes:
    """A canvas with frames of one pixel that claim a place and a size."""
    packed = (b"," + struct.pack("<4HB", *frame, 0) + b"\2\2\x44\1\0" for frame in frames)
    canvas = struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    return b"GIF89a" + canvas + b"".join(packed) + b";"


def jpeg(*segments: bytes) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    return b"".join((b"\xff\xd8", *segments, file.getvalue()[2:]))


def icc(number: int, count: int, data: bytes) -> bytes:
    body = b"ICC_PROFILE\0" + bytes([number, count]) + data
    return b"\xff\xe2" + struct.pack(">H", 2 + len(body)) + body


def avif(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "AVIF")
    size = b"ispe\0\0\0\0" + struct.pack(">II", 64, 64)
    return file.getvalue().replace(size, size[:8] + struct.pack(">II", side, side))


ZEROS = zlib.compress(bytes(70 * MIB), 9)
STRUCTURES = {
    "TIFF": (tiff(), (8, 8)),
    "TIFF, a circle of pages": (tiff(next_page=72), (8, 8)),
    "TIFF, an EXIF directory that is the page": (tiff((34665, 4, 1, 72)), (8, 8)),
    "TIFF, an ICC profile of 4 GiB": (tiff((34675, 7, 2**32 - 1, 8)), (8, 8)),
    "TIFF, 2**31 strips": (tiff((273, 4, 2**31 - 1, 8)), "can't be decoded"),
    "TIFF, no rows in a strip": (tiff((278, 4, 1, 0)), "can't be decoded"),
    "TIFF, a large page": (tiff((256, 4, 1, 13_000), (257, 4, 1, 13_000)), "claims 13000x13000"),
    "GIF": (gif(1, (0, 0, 1, 1)), (1, 1)),
    "GIF, 10,000 frames": (gif(4, *[(0, 0, 1, 1)] * 10_000), (4, 4)),
    "GIF, a frame that widens it": (gif(4, (0, 0, 13_000, 13_000)), "claims 13000x13000"),
    "GIF, a frame far outside": (gif(4, (65_000, 65_000, 500, 500)), "exceeds limit"),
    "APNG, 2**31 frames": (png(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))), (8, 8)),
    "APNG, no frames": (png(chunk(b"acTL", bytes(8))), (8, 8)),
    "APNG, a frame outside": (
        png(
            chunk(b"acTL", struct.pack(">II", 2, 0)),
            chunk(b"fcTL", struct.pack(">5I2H2B", 0, *[2**30] * 4, 1, 1, 0, 0)),
        ),
        "invalid frames",
    ),
    "PNG, an ICC profile that unpacks": (png(chunk(b"iCCP", b"x\0\0" + ZEROS)), "too large"),
    "PNG, a text that unpacks": (png(chunk(b"zTXt", b"x\0\0" + ZEROS)), "too large"),
    "PNG, an ICC profile of noise": (png(chunk(b"iCCP", b"x\0\0" + zlib.compress(b"x"))), (8, 8)),
    "JPEG, parts of a profile twice": (jpeg(*[icc(1, 255, bytes(999))] * 300), (8, 8)),
    "JPEG, part 0 of 0": (jpeg(icc(0, 0, b"")), (8, 8)),
    "AVIF": (avif(64), (64, 64)),
    "AVIF, 256 megapixels": (avif(16_000), "claims 16000x16000"),
    "AVIF, beyond its format": (avif(2**31 - 1), "can't be decoded"),
}


@pytest.mark.parametrize(("data", "expected"), STRUCTURES.values(), ids=STRUCTURES)
def test_structures_of_formats(data: bytes, expected: tuple[int, int] | str) -> None:
    with little_memory(6):
        if isinstance(expected, tuple):
            assert decode(io.BytesIO(data)).size == expected
            return
        with pytest.raises(ImageError, match=expected):
            decode(io.BytesIO(data))
