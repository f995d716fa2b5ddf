"""RandAugment: a few random operations, all of the same magnitude.

Cubuk et al., arXiv 1909.13719, with the sixteen operations, ranges and distances of the TensorFlow
code that google-research/big_vision trains the Mixer with. Pillow computes them, as in timm. One
difference remains: Pillow changes contrast around the image's mean grey, that code around a grey of
(pixels / 256).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Rng = np.random.Generator
Operation = Callable[[Image.Image, float, Rng], Image.Image]
"""(grey or RGB image, strength = magnitude / 10, rng) -> image."""

GREY = 128
"""Fills what comes in from outside the image, and what is cut out."""

_ENHANCERS = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}
# Distances were chosen for images of 224 pixels and scale in proportion.
_SHIFT = 100 / 224
_CUT = 40 / 224


@dataclass(frozen=True)
class RandAugment:
    """`layers` operations, each with `magnitude`.

    Ranges were defined for magnitudes of 0 to 10, but published recipes use 15 and 20. Beyond 10,
    rotation, shifts and enhancement grow stronger; `solarize` has no effect from 10 on, and
    `posterize` none from 20 on.
    """

    layers: int
    magnitude: int

    def __call__(self, pixels: NDArray[np.uint8], rng: Rng) -> NDArray[np.uint8]:
        """(H, W, 1 or 3) -> the same shape."""
        image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
        operations = list(OPERATIONS.values())
        for _ in range(self.layers):
            operation = operations[rng.integers(len(operations))]
            image = operation(image, self.magnitude / 10, rng)
        return np.array(image).reshape(pixels.shape)


def _either_sign(value: float, rng: Rng) -> float:
    return value if rng.random() < 0.5 else -value


def _fill(image: Image.Image) -> tuple[int, ...]:
    return (GREY,) * len(image.getbands())


def _rotate(image: Image.Image, strength: float, rng: Rng) -> Image.Image:
    return image.rotate(_either_sign(30 * strength, rng), fillcolor=_fill(image))


def _posterize(image: Image.Image, strength: float, rng: Rng) -> Image.Image:
    """Keep the highest bits; below magnitude 3, none."""
    keep = 256 - 2 ** max(0, 8 - int(4 * strength))
    return image.point([i & keep for i in range(256)] * len(image.getbands()))


def _solarize(image: Image.Image, strength: float, rng: Rng) -> Image.Image:
    return ImageOps.solarize(image, int(256 * strength))


def _solarize_add(image: Image.Image, strength: float, rng: Rng) -> Image.Image:
    """Brighten dark values."""
    table = [min(255, i + int(110 * strength)) if i < 128 else i for i in range(256)]
    return image.point(table * len(image.getbands()))


def _enhance(name: str) -> Operation:
    def enhance(image: Image.Image, strength: float, rng: Rng) -> Image.Image:
        return _ENHANCERS[name](image).enhance(1.8 * strength + 0.1)

    return enhance


def _affine(image: Image.Image, *rows: float) -> Image.Image:
    """`rows` are a to f: the pixel at (x, y) comes from (a x + b y + c, d x + e y + f)."""
    kind = Image.Transform.AFFINE
    return image.transform(image.size, kind, rows, fillcolor=_fill(image))


def _shear_x(image: Image.Image, strength: float, rng: Rng) -> Image.Image:
    return _affine(image, 1, _either_sign(0.3 * strength, rng), 0, 0, 1, 0)


def _shear_y(image: Image.Image, strength: float, rng: Rng) -> Image.Image:
    return _affine(image, 1, 0, 0, _either_sign(0.3 * strength, rng), 1, 0)


def _translate_x(image: Image.Image, strength: float, rng: Rng) -> Image.Image:
    return _affine(image, 1, 0, _either_sign(strength * _SHIFT * image.width, rng), 0, 1, 0)


def _translate_y(image: Image.Image, strength: float, rng: Rng) -> Image.Image:
    return _affine(image, 1, 0, 0, 0, 1, _either_sign(strength * _SHIFT * image.height, rng))


def _cutout(image: Image.Image, strength: float, rng: Rng) -> Image.Image:
    """A grey box centred anywhere in the image, whose edges may cut it off."""
    y, x = int(rng.integers(image.height)), int(rng.integers(image.width))
    half_h, half_w = (int(strength * _CUT * side + 1e-9) for side in (image.height, image.width))
    image = image.copy()
    if half_h and half_w:
        box = (x - half_w, y - half_h, x + half_w - 1, y + half_h - 1)
        ImageDraw.Draw(image).rectangle(box, fill=_fill(image))
    return image


OPERATIONS: dict[str, Operation] = {
    "auto_contrast": lambda image, strength, rng: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, rng: ImageOps.equalize(image),
    "invert": lambda image, strength, rng: ImageOps.invert(image),
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    **{name: _enhance(name) for name in _ENHANCERS},
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "cutout": _cutout,
    "solarize_add": _solarize_add,
}
