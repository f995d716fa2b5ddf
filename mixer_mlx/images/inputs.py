"""What users give as images: one of many forms, or many of them."""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixer_mlx.errors import ImageError

from .depth import eight_bits_array


class Array(Protocol):
    """An `mx.array`, a torch tensor on the CPU, or another array that NumPy can read."""

    def __array__(self) -> NDArray[Any]:
        """As a NumPy array."""


@dataclass(frozen=True)
class LazyImage:
    """An image that is read when needed: from an archive, a URL, or elsewhere.

    `name` is for display. `read` returns the bytes of the file, or raises ImageError.
    """

    name: str
    read: Callable[[], bytes] = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def open(self) -> BinaryIO:
        """The file, in memory."""
        return io.BytesIO(self.read())


FileInput: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | LazyImage
)
"""An encoded image: a path, the content of a file, or a file opened in binary mode."""
ImageInput: TypeAlias = FileInput | Image.Image | NDArray[np.uint8] | NDArray[np.uint16] | Array
"""One image: encoded, from Pillow, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."""
ImagesInput: TypeAlias = ImageInput | Iterable[ImageInput]
"""One image, an array (N, H, W, C), or any iterable of images."""

Given: TypeAlias = FileInput | Image.Image | NDArray[Any]
"""One image in a form that any thread can decode."""


def one_image(images: ImagesInput) -> TypeGuard[ImageInput]:
    """Whether this is one image, rather than several.

    Neither is an array of four axes, nor one of paths or of other objects, e.g. a pandas Series.
    """
    if _encoded(images) or isinstance(images, Image.Image):
        return True
    if hasattr(images, "__array__"):
        array = _as_array(images)
        return array.ndim != 4 and array.dtype.kind not in "OUT"
    return not isinstance(images, Iterable)


def each(images: ImagesInput) -> Iterator[tuple[ImageInput, Given | ImageError]]:
    """Every image as it was given, and as `given` returns it, or that error."""
    for image in _several(images):
        try:
            yield image, given(image)
        except ImageError as error:
            yield image, error


def given(image: ImageInput) -> Given:
    """One image in a form that any thread can decode; pixels aren't read from a file yet.

    To be called where `image` was made: an `mx.array` can only be computed by its own thread.
    Raises ImageError for what isn't an image.
    """
    if _encoded(image) or isinstance(image, Image.Image):
        return image  # type: ignore[return-value]
    if hasattr(image, "__array__"):
        array = _as_array(image)
        _check_array(array)
        return array
    raise ImageError(
        "An image is a path, bytes, a binary file, a PIL image or an array, not "
        f"{type(image).__name__}."
    )


def name_of(image: ImageInput) -> str | None:
    """A path, the name of a file or of a `LazyImage`; None for an image without one."""
    if isinstance(image, str | os.PathLike | LazyImage):
        return str(image)
    name = getattr(image, "name", None) or getattr(image, "filename", None)
    return name if isinstance(name, str) else None


def from_array(array: NDArray[Any]) -> Image.Image:
    """An array that `given` accepted as an image; 16 bits as those of files, see `depth`."""
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        array = eight_bits_array(array)
    grey = array.shape[2:] in {(), (1,)}
    return Image.fromarray(array.reshape(array.shape[:2]) if grey else array)


def _several(images: ImagesInput) -> Iterable[ImageInput]:
    if one_image(images):
        return [images]
    if hasattr(images, "__array__"):
        return _as_array(images)  # iterates over the first axis
    return images  # type: ignore[return-value]


def _encoded(image: object) -> bool:
    kinds = (str, bytes, bytearray, memoryview, os.PathLike, LazyImage)
    return isinstance(image, kinds) or hasattr(image, "read")


def _as_array(image: object) -> NDArray[Any]:
    if isinstance(image, np.ndarray):
        return image
    try:
        return np.asarray(image)
    except Exception as error:  # each library has its own: on another device, or needs gradients
        raise ImageError(
            f"The {type(image).__name__} can't be read as a NumPy array ({error}); pass uint8 "
            "pixels in the CPU's memory."
        ) from error


def _check_array(array: NDArray[Any]) -> None:
    kind, size = array.dtype.kind, array.dtype.itemsize
    good = kind == "u" and size <= 2
    if good and array.ndim in (2, 3) and array.size and array.shape[2:] in _CHANNELS:
        return
    raise ImageError(
        f"The array is {array.dtype} {array.shape}; it must be uint8 or uint16 and (H, W), "
        f"(H, W, 1), (H, W, 3) or (H, W, 4){_fix(array)}."
    )


_CHANNELS = {(), (1,), (3,), (4,)}


def _fix(array: NDArray[Any]) -> str:
    """How to make the array an image, as the end of a sentence."""
    if array.dtype.kind == "f":
        return (
            ". For values 0 to 1 pass (image * 255).round().astype('uint8'); normalised images go "
            "into the classifier's model"
        )
    if array.dtype.kind in "ib" or array.dtype.itemsize > 2:
        return ". For values 0 to 255 pass image.astype('uint8')"
    if array.ndim == 3 and array.shape[:1] in _CHANNELS:
        return ". Move its channels last, by transpose(1, 2, 0)"
    if array.ndim == 3:
        return ". Several grey images are (N, H, W, 1)"
    if array.ndim == 4:
        return ". Pass several images by themselves, not in a list"
    return ""
