"""Recognising an image's format by its first bytes, and what its header may claim."""

import os
import re
from contextlib import suppress
from typing import BinaryIO

from PIL import ImageFile
from PIL.AvifImagePlugin import SUPPORTED as HAS_AVIF
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import SUPPORTED as HAS_WEBP
from PIL.WebPImagePlugin import WebPImageFile

from mixer_mlx.errors import ImageError

MAX_PIXELS = 2**28
"""Larger images are refused before a pixel is decoded; a 200-megapixel photo passes."""

MAX_PIXELS_PER_BYTE = 2**14
"""Of an image with more than MAX_RLE_PIXELS: a few bytes of a GIF or WebP can claim any size, and
take its memory. PNG's compression ends at half of that."""

MAX_RLE_PIXELS = 2**24
"""For run-length encoded BMPs: Pillow decodes them in Python at 12 megapixels per second, and 1 kB
of such a file can encode any number of pixels."""

MAX_SCANS = 100
"""Of a progressive JPEG, each of which takes a pass over all pixels; encoders make about ten."""
MAX_SCAN_PIXELS = 2**32
"""Scans times pixels: 16 scans of the largest image."""

_MAX_JPEG_BYTES = 2**28
_JPEG_MARKER = re.compile(rb"\xff[^\0\1\xff\xd0-\xd7]")  # of a segment; in a scan, others follow ff
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"

# The classes and not Image.open, which applies Pillow's global limit of 179 megapixels to every
# image, and parses the index of JPEGs with several images (MPO), where one wrong byte would lose
# the first image too.
_READERS: list[tuple[re.Pattern[bytes], type[ImageFile.ImageFile]]] = [
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"GIF8[79]a"), GifImageFile),
    (re.compile(rb"BM"), BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
]
if HAS_WEBP:
    _READERS.append((re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile))
# AVIF and HEIC share a container, and the brands mif1 and msf1 may be either: then the list of
# compatible brands decides.
if HAS_AVIF:
    _AVIF = re.compile(rb"....ftyp(avi[fs]|m[is]f1....(....)*?avi[fs])", re.DOTALL)
    _READERS.append((_AVIF, AvifImageFile))
_HEIC = re.compile(rb"....ftyp(he[iv][cmsx]|m[is]f1)", re.DOTALL)


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """The image in a seekable binary file; only the header is read.

    Raises ImageError, and whatever Pillow raises on damaged files.
    """
    length = file.seek(0, os.SEEK_END)
    image = _reader(file)
    check_size(image.size)
    width, height = image.size
    if width * height > max(MAX_RLE_PIXELS, length * MAX_PIXELS_PER_BYTE):
        raise ImageError(
            f"The image claims {width}x{height} pixels in a file of {length:,} bytes; use an "
            "intact copy, or shrink it."
        )
    if image.tile and image.tile[0][0] == "bmp_rle" and width * height > MAX_RLE_PIXELS:
        raise ImageError(
            f"The image is a run-length encoded BMP of {width}x{height} pixels; above "
            f"{MAX_RLE_PIXELS:,} pixels, save it without compression or as PNG."
        )
    return image


def check_size(size: tuple[int, int]) -> None:
    """Raise ImageError unless there are 1 to MAX_PIXELS pixels."""
    width, height = size
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(
            f"The image has {width}x{height} pixels; use one with 1 to {MAX_PIXELS:,} pixels."
        )


def check_scans(file: BinaryIO, pixels: int) -> None:
    """Raise ImageError for a JPEG of too many scans. Leaves the position as it is."""
    limit = min(MAX_SCANS, MAX_SCAN_PIXELS // pixels)
    position = file.tell()
    file.seek(2)
    data = file.read(_MAX_JPEG_BYTES)
    file.seek(position)
    scans, start = 0, 0
    while marker := _JPEG_MARKER.search(data, start):
        if marker[0] == _END_OF_IMAGE:
            return
        scans += marker[0] == _START_OF_SCAN
        if scans > limit:
            raise ImageError(f"The image is a JPEG of over {limit} scans; save it again.")
        start = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")


def _reader(file: BinaryIO) -> ImageFile.ImageFile:
    file.seek(0)
    start = file.read(64)
    if not start:
        raise ImageError("The file is empty; use an intact copy.")
    file.seek(0)
    for magic, reader in _READERS:
        if magic.match(start):
            return reader(file, "")
    if _HEIC.match(start):
        return _heic_reader()(file, "")
    formats = ", ".join(str(reader.format) for _, reader in _READERS)
    raise ImageError(f"The file isn't an image in a supported format; save it as one of {formats}.")


def _heic_reader() -> type[ImageFile.ImageFile]:
    """pillow-heif's, of the extra, or that of pi-heif, which comes along on macOS."""
    with suppress(ImportError):
        import pillow_heif

        return pillow_heif.HeifImageFile
    with suppress(ImportError):
        import pi_heif

        return pi_heif.HeifImageFile
    raise ImageError("The image is HEIC, which needs an extra; pip install 'mixer-mlx[heif]'.")
