"""Silences Pillow, and turns all that it raises into ImageError."""

import ctypes
import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from mixer_mlx.errors import ImageError

# What Pillow 12.3 to 13 raises on damaged files, by its source and by fuzzing.
RAISED_BY_PILLOW = (
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

# Without a handler, logging would write Pillow's errors to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def quietly(verb: str, advice: str) -> Iterator[None]:
    """Run Pillow in silence and turn what it raises into ImageError."""
    with _QUIET:
        try:
            yield
        except MemoryError as error:
            raise ImageError("There is too little memory for the image; shrink it.") from error
        except RAISED_BY_PILLOW as error:
            why = reason(error)
            raise ImageError(f"The image can't be {verb} ({why}); {advice}.") from error


def reason(error: BaseException) -> str:
    """An exception's message, in one line."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__


def bare(error: ImageError) -> ImageError:
    """The same error without its traceback and causes, whose frames hold an image's pixels."""
    return type(error)(*error.args)


class _Quiet:
    """While any thread is inside, neither Pillow's warnings nor libtiff's errors reach stderr.

    `warnings.catch_warnings` isn't thread-safe before Python 3.14: threads that leave it in another
    order than they entered restore each other's filters. Here one filter, for Pillow's modules
    only, is added to the list of filters, and removed from that same list when the last thread
    leaves. libtiff writes its errors to file descriptor 2 unless its error handler is removed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filter = ("ignore", None, Warning, re.compile(r"(PIL|pillow_heif|pi_heif)\."), 0)
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
            # The current list may be a copy of one that we changed, made while we were inside.
            current: Any = warnings.filters
            for filters in (*self._changed, current):
                while self._filter in filters:
                    filters.remove(self._filter)
            self._changed.clear()


def _libtiff_error_setter() -> Callable[[int | None], int | None]:
    """libtiff's TIFFSetErrorHandler (new handler -> old one), from Pillow's own copy."""
    try:
        extension: Any = getattr(Image, "core")  # noqa: B009  # exported without a type
        setter = ctypes.CDLL(extension.__file__).TIFFSetErrorHandler
    except (AttributeError, OSError):  # Pillow without libtiff, or with its symbols hidden
        return lambda handler: handler
    setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    return setter


_QUIET = _Quiet()
