"""Safe decoding: a user's image in any form -> an upright RGB image, or ImageError."""

import io
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile
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
from mixer_mlx.runtime.macos import refusal
from mixer_mlx.runtime.tuning import decode_bytes

from .depth import check_depth, eight_bits
from .inputs import FileInput as FileInput
from .inputs import ImageInput as ImageInput
from .inputs import LazyImage as LazyImage
from .inputs import from_array, given
from .pillow import RAISED_BY_PILLOW, quietly, reason

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


def _check_scans(file: BinaryIO, pixels: int) -> None:
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


_BYTES_PER_PIXEL = 4  # Pillow's, for RGB too

_DECODING = ("decoded", "use an intact copy, or save it again")


_ORIENTATION = 0x0112
_TRANSPOSE: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the operation that makes the image upright; 1 needs none."""


def decode(source: FileInput, *, exact: bool = False, at_least: int | None = None) -> Image.Image:
    """The image in a file, upright (EXIF orientation applied), mode "RGB", first frame.

    `source` is a path, bytes, a binary file, which stays open, or a `LazyImage`. JPEG (with MPO),
    PNG, WebP, GIF, BMP, TIFF, AVIF, and with pillow-heif HEIC are recognised by their first bytes,
    not by their name. Nothing is printed, and a FIFO never blocks. Threads may decode at the same
    time; together they use about `tuning.decode_bytes`.

    `at_least` allows a JPEG to be decoded at a half, a quarter or an eighth of its size, if that
    divides both sides and leaves each at least `at_least` pixels long. `exact` forbids it and
    ignores the EXIF orientation, as published evaluations do.

    Raises ImageError, whose text doesn't name the file, if it is missing, not a regular file, not
    readable, of another format, damaged, or larger than MAX_PIXELS (TIFF and WebP: than twice
    Pillow's Image.MAX_IMAGE_PIXELS, 179 megapixels).
    """
    with opened(source, at_least=None if exact else at_least) as header:
        image = rgb(header, exact=exact)
    # The caller might apply an orientation left in here again. Pillow may have cached it in an
    # attribute, which a copy doesn't have.
    image.info = {}
    return image.copy() if exact else image


@contextmanager
def opened(image: ImageInput, *, at_least: int | None = None) -> Iterator[Image.Image]:
    """An image for `rgb`; only a file's header is read, and memory for its pixels is reserved.

    `at_least` and the errors are those of `decode`; what isn't an image is an ImageError, too.
    """
    source = given(image)
    if isinstance(source, Image.Image):
        yield source
    elif isinstance(source, np.ndarray):
        yield from_array(source)
    else:
        with _file(source) as file:
            with quietly(*_DECODING):
                header = open_image(file)
                if header.info.get("progressive"):
                    _check_scans(file, header.width * header.height)
                if at_least is not None and isinstance(header, JpegImageFile):
                    _reduce(header, at_least)
            with _BUDGET.reserved(_BYTES_PER_PIXEL * header.width * header.height):
                yield header


def rgb(image: Image.Image, *, exact: bool = False) -> Image.Image:
    """The pixels of an image as mode "RGB", upright unless `exact`. Raises ImageError."""
    with quietly(*_DECODING):
        converted = to_rgb(image)  # loads: Pillow then rotates a TIFF and drops its orientation
        return converted if exact else _upright(converted, image)


def to_rgb(image: Image.Image) -> Image.Image:
    """An image in any of Pillow's modes -> mode "RGB"; the image itself if it is RGB already.

    Transparency is composited over white; 16-bit grey is scaled from the range that it uses, in
    steps (8, 12 or 16 bits; Pillow alone would clip it to white). Raises ImageError if that fails,
    and beyond MAX_PIXELS.
    """
    check_size(image.size)
    with quietly(*_DECODING):
        deep = ";16" in str(getattr(image, "tile", ""))
        image.load()
        if deep and image.mode in ("RGB", "RGBA", "LA"):
            check_depth(image)
        if image.mode == "F":
            raise ImageError(
                "The image has floating-point pixels of unknown range; save it with 8 bits."
            )
        if image.mode.startswith("I"):
            return eight_bits(image).convert("RGB")
        if image.mode == "La":  # Pillow converts it only to LA
            image = image.convert("LA")
        if image.has_transparency_data:
            return _over_white(image.convert("RGBA"))
        return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _upright(converted: Image.Image, original: Image.Image) -> Image.Image:
    try:
        turn = _TRANSPOSE.get(original.getexif().get(_ORIENTATION))
    except RAISED_BY_PILLOW:  # a damaged EXIF block must not lose the image
        turn = None
    return converted if turn is None else converted.transpose(turn)


def _reduce(image: JpegImageFile, at_least: int) -> None:
    """Let libjpeg scale while it decodes.

    Only by a divisor of both sides: otherwise the last row or column would be partly padding, and
    all others slightly off the grid that resizing assumes.
    """
    width, height = image.size
    for scale in (8, 4, 2):
        fits = width % scale == 0 and height % scale == 0
        if fits and min(width, height) // scale >= at_least:
            image.draft(image.mode, (width // scale, height // scale))
            return


def _file(source: FileInput) -> AbstractContextManager[BinaryIO]:
    if isinstance(source, str | os.PathLike):
        return _regular_file(source)
    if isinstance(source, LazyImage):
        return source.open()
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if isinstance(source, io.TextIOBase):
        raise ImageError("The file was opened as text; open it in binary mode, open(path, 'rb').")
    if hasattr(source, "seekable") and source.seekable():
        return nullcontext(source)
    return io.BytesIO(source.read())  # e.g. the answer of a web server


@contextmanager
def _regular_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    try:
        if os.path.isdir(path):
            os.scandir(path).close()  # macOS may open a folder whose content it keeps private
        # Without O_NONBLOCK, opening a FIFO would wait for a writer forever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        what = "no such folder" if os.fspath(path)[-1:] in ("/", b"/") else "no such file"
        what = "a link to a file that doesn't exist" if os.path.islink(path) else what
        raise ImageError(f"There is {what}; check the path.") from error
    except PermissionError as error:
        raise ImageError(refusal(error)) from error
    except (OSError, ValueError) as error:
        raise ImageError(f"The path can't be opened ({reason(error)}); give a file.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageError("The path is a folder, a pipe or a device; give a file.")
    with os.fdopen(descriptor, "rb") as file:
        yield file


class _Budget:
    """A budget of bytes that threads reserve and release; a larger request gets all of it."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._changed = threading.Condition()

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        size = min(size, self._size)
        with self._changed:
            # Without memory, a thread may fail before it notifies the others.
            while not self._changed.wait_for(lambda: self._free >= size, timeout=1):
                pass
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()


_BUDGET = _Budget(decode_bytes(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
