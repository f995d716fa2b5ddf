"""Which reader a picture file needs, by its first bytes, and what is refused by its header."""

import re
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
"""Larger pictures are refused before a pixel is decoded; a 200-megapixel photo passes."""

MAX_RLE_PIXELS = 2**24
"""For run-length encoded BMPs: Pillow decodes them in Python, 12 megapixels per second, and 1 kB
of such a file can hold any number of pixels."""

# The classes themselves and not Image.open: that one holds every picture to Pillow's global limit
# of 179 megapixels, which is not ours to move, and its JPEG entry reads the index of a phone's
# several pictures (MPO), where one wrong byte would lose the first picture too.
_READERS: list[tuple[re.Pattern[bytes], type[ImageFile.ImageFile]]] = [
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"GIF8[79]a"), GifImageFile),
    (re.compile(rb"BM"), BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
]
if HAS_WEBP:
    _READERS.append((re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile))
# AVIF and HEIC come in the same container, and mif1 and msf1 may be either: then the list of
# compatible brands tells.
if HAS_AVIF:
    _AVIF = re.compile(rb"....ftyp(avi[fs]|m[is]f1....(....)*?avi[fs])", re.DOTALL)
    _READERS.append((_AVIF, AvifImageFile))
_HEIC = re.compile(rb"....ftyp(he[iv][cmsx]|m[is]f1)", re.DOTALL)


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """The picture in a seekable binary file, of which only the header is read.

    Raises ImageError, and whatever Pillow raises on damaged files.
    """
    image = _reader(file)
    check_size(image.size)
    width, height = image.size
    if image.tile and image.tile[0][0] == "bmp_rle" and width * height > MAX_RLE_PIXELS:
        raise ImageError(
            f"The picture is a run-length encoded BMP of {width}x{height} pixels; above "
            f"{MAX_RLE_PIXELS:,} pixels, save it without compression or as PNG."
        )
    return image


def check_size(size: tuple[int, int]) -> None:
    """Raise ImageError for no pixels, and for more than MAX_PIXELS."""
    width, height = size
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(
            f"The picture has {width}x{height} pixels; use one with 1 to {MAX_PIXELS:,} pixels."
        )


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
    raise ImageError(f"The file is no picture that can be read; save it as one of {formats}.")


def _heic_reader() -> type[ImageFile.ImageFile]:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ImageError(
            "The picture is HEIC, which an extra reads; pip install 'mixer-mlx[heif]'."
        ) from error
    return HeifImageFile
