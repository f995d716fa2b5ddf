"""Small copies of images, for sheets, pages and notebooks."""

import base64
import io

from PIL import Image

from mixer_mlx.errors import ImageError

from .decode import opened, rgb
from .inputs import ImageInput

SIDE = 160
"""The largest width and height, in pixels."""


def thumbnail(image: Image.Image) -> Image.Image:
    """An RGB image scaled to fit a square of SIDE pixels."""
    scale = min(SIDE / image.width, SIDE / image.height)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def open_thumbnail(image: ImageInput) -> Image.Image | None:
    """A small RGB image, so that a page takes little memory; None if unreadable."""
    try:
        with opened(image, at_least=SIDE) as file:
            pixels = rgb(file)
            return thumbnail(pixels) if max(pixels.size) > SIDE else pixels
    except ImageError:
        return None


def image_url(image: Image.Image) -> str:
    """A `data:` URL that holds the image: JPEG, or PNG for a small one, which gets enlarged."""
    kind = "png" if max(image.size) < SIDE else "jpeg"
    return data_url(kind, encoded(image, kind))


def encoded(image: Image.Image, kind: str) -> bytes:
    """A file's content; `kind` is "png" or "jpeg"."""
    file = io.BytesIO()
    image.save(file, kind, quality=85)
    return file.getvalue()


def data_url(kind: str, content: bytes) -> str:
    """A `data:` URL for an encoded image; `kind` is "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
