"""Safe decoding: a user's image in any form -> an upright RGB image, or ImageError."""

import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from mixer_mlx.errors import ImageError
from mixer_mlx.runtime.machine import memory_bytes
from mixer_mlx.runtime.macos import refusal
from mixer_mlx.runtime.tuning import decode_bytes

from .depth import check_depth, eight_bits
from .formats import check_scans, check_size, open_image
from .inputs import FileInput as FileInput
from .inputs import ImageInput as ImageInput
from .inputs import LazyImage as LazyImage
from .inputs import from_array, given
from .pillow import RAISED_BY_PILLOW, quietly, reason

_BYTES_PER_PIXEL = 4
"""In Pillow, for RGB too."""

_BYTES_TO_DECODE = {"AVIF": 8, "HEIF": 8, "TIFF": 8, "WEBP": 16}
"""With the decoder's own, by measuring the peaks of 12-megapixel images with Pillow 13; AVIF's is
taken to be HEIF's. A progressive JPEG keeps three bytes of coefficients, at its full size."""

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
                full = header.width * header.height
                if header.info.get("progressive"):
                    check_scans(file, full)
                if at_least is not None and isinstance(header, JpegImageFile):
                    _reduce(header, at_least)
            with _BUDGET.reserved(_bytes_for(header, full)):
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


def _bytes_for(image: Image.Image, full: int) -> int:
    """Memory for decoding an image, of `full` pixels before it was reduced."""
    per_pixel = _BYTES_TO_DECODE.get(image.format or "", _BYTES_PER_PIXEL)
    if image.mode != "RGB":  # converted, and perhaps composited
        per_pixel += 2 * _BYTES_PER_PIXEL
    kept = 3 * full if image.info.get("progressive") else 0
    return per_pixel * image.width * image.height + kept


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


_BUDGET = _Budget(decode_bytes(memory_bytes()))
