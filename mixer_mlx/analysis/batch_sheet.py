"""A batch of training as a page of pictures: what the model sees, and what it is told that is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixer_mlx.data.mixing import Labels, SoftLabels

from .sheets import Tile, contact_sheet


def batch_sheet(pixels: NDArray[np.uint8], labels: Labels, classes: Sequence[str]) -> Image.Image:
    """Pixels (N, H, W, 1 or 3) with the names of their classes -> an RGB page.

    Below a name stands the weight of its class, where there is one, and those mixed into it.
    """
    tiles = [Tile(_image(pixels[i]), *_texts(labels, i, classes)) for i in range(len(pixels))]
    return contact_sheet(tiles)


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).convert("RGB")


def _texts(labels: Labels, i: int, classes: Sequence[str]) -> tuple[str, str]:
    """Caption and title of example i."""
    if not isinstance(labels, SoftLabels):
        return "", classes[labels[i]]
    (label, weight), *others = zip(labels.labels[:, i], labels.weights[:, i], strict=True)
    mixed = [f"{part:.2f} {classes[other]}" for other, part in others]
    caption = " + ".join([f"{weight:.2f}", *mixed]) if mixed else f"weight {weight:.2f}"
    return caption, classes[label]
