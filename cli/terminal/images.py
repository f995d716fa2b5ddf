"""The images that a command's arguments stand for."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mixer_mlx.errors import ImageError

if TYPE_CHECKING:
    from mixer_mlx.images.decode import LazyImage


def found_images(names: Sequence[str], *, null: bool = False) -> "Iterator[str | LazyImage]":
    """The images that the arguments stand for, found lazily; "-" is the list on stdin."""
    from mixer_mlx.images.find import find_images, read_names

    def fetch(url: str) -> bytes:
        from mixer_mlx.convert.fetch.images import fetch

        return fetch(url)

    listed = read_names(sys.stdin.buffer, null=null) if sys.stdin else ()
    return find_images(names, listed=listed, fetch=fetch)


def all_missing(
    images: "Iterator[str | LazyImage]",
) -> "tuple[list[str | LazyImage] | None, Iterator[str | LazyImage]]":
    """The images, if none of them exists, else None; and an iterator over all of them."""
    from mixer_mlx.images.find import is_missing

    missing: list[str | LazyImage] = []
    for image in images:
        if not is_missing(image):
            return None, itertools.chain(missing, [image], images)
        missing.append(image)
    return missing, iter(missing)


def no_images() -> ImageError:
    """The error for arguments that stand for no images."""
    return ImageError("No images found; name the files, or folders that contain some.")
