"""Safe decoding: whatever a user gives as a picture -> an upright RGB picture, or ImageError."""

import ctypes
import logging
import os
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, _imaging
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

ImageInput: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]

MAX_PIXELS = 2**28
"""Larger pictures are refused before a pixel is decoded; a 200-megapixel photo passes."""

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
if HAS_AVIF:
    _READERS.append((re.compile(rb"....ftyp(avif|avis|mif1|msf1)", re.DOTALL), AvifImageFile))

# All that Pillow 12.3 to 13 was seen, or can be read, to raise on damaged files.
_RAISED_BY_PILLOW = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    Image.DecompressionBombError,
    struct.error,
    zlib.error,
)

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
"""EXIF orientation -> the turn that makes the picture upright; 1 needs none."""

# Without any handler, logging writes Pillow's errors to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def decode(source: str | os.PathLike[str] | BinaryIO) -> Image.Image:
    """The picture in a file, upright (EXIF orientation applied), mode "RGB", first frame.

    `source` is a path or a seekable binary file, which stays open. JPEG (with MPO), PNG, WebP,
    GIF, BMP, TIFF and AVIF are read, known by their first bytes and not by their name. Nothing is
    printed, a FIFO never blocks, and other threads may decode at the same time.

    Raises ImageError, whose text doesn't name the file, if it is missing, not a regular file, not
    readable, none of these formats, damaged, or larger than MAX_PIXELS (TIFF and WebP: than
    twice Pillow's Image.MAX_IMAGE_PIXELS, 179 megapixels).
    """
    if not isinstance(source, str | os.PathLike):
        return _decode(source)
    with _regular_file(source) as file:
        return _decode(file)


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture in any mode of Pillow's -> mode "RGB"; the picture itself if it is RGB already.

    Transparent pixels are laid over white; 16-bit grey is divided by 257 (Pillow alone clips it
    to white). Raises ImageError for what can't be decoded or converted, and beyond MAX_PIXELS.
    """
    width, height = image.size
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(
            f"The picture has {width}x{height} pixels; use one with 1 to {MAX_PIXELS:,} pixels."
        )
    with quietly("decoded", "use an intact copy, or save it anew"):
        image.load()
        if image.mode == "F":
            raise ImageError(
                "The picture has floating-point pixels of unknown range; save it with 8 bits."
            )
        if image.mode.startswith("I"):
            return _eight_bits(image).convert("RGB")
        if image.mode == "La":  # the one mode that Pillow converts to LA only
            image = image.convert("LA")
        if image.has_transparency_data:
            return _over_white(image.convert("RGBA"))
        return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Modes "I" and "I;16*", clipped to 0..65535 -> "L"."""
    lut = [(value + 128) // 257 for value in range(65_536)]
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and 0 <= transparent < len(lut):
        lut[transparent] = 255
    grey = image.convert("I").point(lut, "L")
    grey.info = {}  # the 16-bit transparent value means nothing among 8-bit ones
    return grey


def _over_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _decode(file: BinaryIO) -> Image.Image:
    with quietly("decoded", "use an intact copy, or save it anew"):
        picture = _upright(_reader(file))
    # An orientation left in here would be applied again by whoever gets the picture.
    picture.info = {}
    return picture


def _reader(file: BinaryIO) -> ImageFile.ImageFile:
    """Reads the header; pixels come with `load`."""
    file.seek(0)
    start = file.read(16)
    if not start:
        raise ImageError("The file is empty; use an intact copy.")
    for magic, reader in _READERS:
        if magic.match(start):
            file.seek(0)
            return reader(file, "")
    formats = ", ".join(str(reader.format) for _, reader in _READERS)
    raise ImageError(f"The file is no picture that can be read; save it as one of {formats}.")


def _upright(image: Image.Image) -> Image.Image:
    picture = to_rgb(image)  # loads: a TIFF turns itself then, and drops its orientation
    with _QUIET:
        try:
            turn = _TRANSPOSE.get(image.getexif().get(_ORIENTATION))
        except _RAISED_BY_PILLOW:  # a broken EXIF block must not lose the picture
            turn = None
    return picture if turn is None else picture.transpose(turn)


@contextmanager
def _regular_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    try:
        # Without O_NONBLOCK, opening a FIFO waits for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        what = "a link to a file that doesn't exist" if os.path.islink(path) else "no such file"
        raise ImageError(f"There is {what}; check the path.") from error
    except PermissionError as error:
        raise ImageError("The file may not be read; change its permissions.") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"The path can't be opened ({_reason(error)}); name a file.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageError("The path is a folder, a pipe or a device; name a file.")
    with os.fdopen(descriptor, "rb") as file:
        yield file


@contextmanager
def quietly(verb: str, advice: str) -> Iterator[None]:
    """Runs Pillow in silence and turns what it raises into ImageError."""
    with _QUIET:
        try:
            yield
        except MemoryError as error:
            raise ImageError("There is too little memory for the picture; shrink it.") from error
        except _RAISED_BY_PILLOW as error:
            reason = _reason(error)
            raise ImageError(f"The picture can't be {verb} ({reason}); {advice}.") from error


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__


class _Quiet:
    """While any thread is inside, neither Pillow's warnings nor libtiff's lines reach stderr.

    `warnings.catch_warnings` won't do: before Python 3.14 threads that leave it in another order
    than they came restore each other's filters. Here one filter, for Pillow's modules alone, is put
    into the list of filters and taken out of that very list when the last thread leaves. libtiff
    writes its errors to file descriptor 2 by itself, unless its error handler is taken away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filter = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
        self._changed: list[list[Any]] = []
        self._set_libtiff_handler = _libtiff_error_setter()
        self._libtiff_handler: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._libtiff_handler = self._set_libtiff_handler(None)
            self._inside += 1
            filters: Any = warnings.filters
            if filters[:1] != [self._filter]:
                filters.insert(0, self._filter)
                self._changed.append(filters)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            self._set_libtiff_handler(self._libtiff_handler)
            # The present list may be a copy, made while we were inside, of one that we changed.
            present: Any = warnings.filters
            for filters in (*self._changed, present):
                while self._filter in filters:
                    filters.remove(self._filter)
            self._changed.clear()


def _libtiff_error_setter() -> Callable[[int | None], int | None]:
    """libtiff's TIFFSetErrorHandler (new handler -> old one), from the copy that Pillow uses."""
    try:
        setter = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
    except (AttributeError, OSError):  # a Pillow without libtiff, or with it linked out of sight
        return lambda handler: handler
    setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    return setter


_QUIET = _Quiet()


def picture(image: ImageInput) -> Image.Image:
    """A path, a PIL image or a uint8 array -> an upright RGB picture. Raises ImageError."""
    if isinstance(image, str | os.PathLike):
        return decode(image)
    if isinstance(image, Image.Image):
        return _upright(image)
    if isinstance(image, np.ndarray):
        return to_rgb(_from_array(image))
    raise ImageError(
        f"A picture is a path, a PIL image or a NumPy array, not {type(image).__name__}."
    )


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    grey = array.shape[2:] in {(), (1,)} and array.ndim > 1
    if array.dtype != np.uint8 or not (grey or array.shape[2:] in {(3,), (4,)}) or not array.size:
        raise ImageError(
            f"The array is {array.dtype} {array.shape}; it must be uint8 and "
            "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."
        )
    return Image.fromarray(array.reshape(array.shape[:2]) if grey else array)
