"""Images: eight formats through `decode` and `Preprocess`."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz.mutate import mutate
from fuzz.target import Target
from PIL import Image, features

from mixer_mlx.images.decode import decode
from mixer_mlx.images.preprocess import Preprocess

_TO_8 = Preprocess((8, 8))


def run_image(data: bytes, _: Path) -> None:
    """An image is RGB, and pixels can be made of it."""
    image = decode(io.BytesIO(data))
    assert image.mode == "RGB"
    pixels = _TO_8(image)
    assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)


def _pixels(mode: str, width: int, height: int) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(0).integers(0, 256, width * height * channels, np.uint8)
    return Image.frombytes(mode, (width, height), noise.tobytes())


def _saved(file_format: str, mode: str, size: tuple[int, int] = (16, 12), **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.new(mode, size) if mode in ("1", "I;16") else _pixels(mode, *size)
    image.save(file, file_format, **options)
    return file.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _jpeg() -> list[bytes]:
    return [
        _saved("JPEG", "RGB"),
        _saved("JPEG", "L", (5, 3)),
        _saved("JPEG", "CMYK"),
        _saved("JPEG", "RGB", progressive=True, optimize=True),
        _saved("JPEG", "RGB", exif=_exif(6), comment=b"cat", icc_profile=b"x" * 40),
        _saved("MPO", "RGB", (9, 8), save_all=True, append_images=[_pixels("RGB", 9, 8)]),
    ]


def _png() -> list[bytes]:
    later = [_pixels("RGB", 8, 8)]
    return [
        _saved("PNG", "RGB"),
        _saved("PNG", "P", transparency=3),
        _saved("PNG", "RGBA", (7, 3), exif=_exif(3)),
        _saved("PNG", "I;16", (5, 5)),
        _saved("PNG", "1", (9, 9)),
        _saved("PNG", "RGB", (8, 8), save_all=True, append_images=later),
    ]


def _gif() -> list[bytes]:
    later = [_pixels("P", 8, 8), _pixels("P", 4, 8)]
    return [
        _saved("GIF", "P"),
        _saved("GIF", "L", (3, 20), transparency=0, interlace=1),
        _saved("GIF", "P", (8, 8), save_all=True, append_images=later, comment=b"cat"),
    ]


def _bmp() -> list[bytes]:
    # A bitmap of run-length codes, which Pillow reads and doesn't write.
    codes = bytes([4, 1, 0, 3, 7, 8, 9, 0, 0, 0, 0, 2, 1, 0, 2, 5, 0, 1])
    palette = bytes(range(64)) * 16
    header = struct.pack("<IiiHHIIiiII", 40, 8, 4, 1, 8, 1, len(codes), 0, 0, 256, 0)
    start = struct.pack("<2sIHHI", b"BM", 14 + 40 + 1024 + len(codes), 0, 0, 14 + 40 + 1024)
    return [*(_saved("BMP", mode) for mode in ("RGB", "L", "1", "P", "RGBA")),
            start + header + palette + codes]  # fmt: skip


def _tiff() -> list[bytes]:
    # "raw" and "packbits" are read by Pillow itself, the others by libtiff.
    kinds = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg")
    more = [_saved("TIFF", "1", compression="group4"), _saved("TIFF", "I;16", (5, 5))]
    return [_saved("TIFF", "RGB", compression=kind, exif=_exif(5)) for kind in kinds] + more


def _webp() -> list[bytes]:
    return [
        _saved("WEBP", "RGB"),
        _saved("WEBP", "RGBA", (7, 3), lossless=True, exif=_exif(8)),
        _saved("WEBP", "RGB", (8, 8), save_all=True, append_images=[_pixels("RGB", 8, 8)]),
    ]


def _avif() -> list[bytes]:
    later = [_pixels("RGB", 8, 8)]
    return [
        _saved("AVIF", "RGB", (8, 8)),
        _saved("AVIF", "RGBA", (7, 5), exif=_exif(2)),
        _saved("AVIF", "RGB", (8, 8), save_all=True, append_images=later),
    ]


def _heic() -> list[bytes]:
    from pillow_heif import from_pillow

    files = []
    for mode, size, exif in (("RGB", (16, 12), None), ("RGBA", (8, 8), _exif(6).tobytes())):
        file = io.BytesIO()
        from_pillow(_pixels(mode, *size)).save(file, quality=50, exif=exif)
        files.append(file.getvalue())
    return files


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what is in them now, as far as they can be told."""
    fixed, at = bytearray(data), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def _image(samples: Callable[[], list[bytes]]) -> Target:
    known = cache(samples)

    def make(chance: Random) -> bytes:
        data = mutate(chance, known())
        png = data.startswith(b"\x89PNG") and chance.random() < 0.75
        return _with_checksums(data) if png else data

    return Target(make, run_image)


IMAGES = {
    "jpeg": _jpeg,
    "png": _png,
    "gif": _gif,
    "bmp": _bmp,
    "tiff": _tiff,
    "webp": _webp,
}
if features.check("avif"):
    IMAGES["avif"] = _avif
if find_spec("pillow_heif"):
    IMAGES["heic"] = _heic
TARGETS = {name: _image(samples) for name, samples in IMAGES.items()}
