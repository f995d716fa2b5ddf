"""Augmentation: random crops and flips, RandAugment, and random erasing.

The random numbers depend only on (seed, epoch, image index), so neither thread order nor the
number of machines changes a run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixer_mlx.images.preprocess import INTERPOLATIONS, Preprocess

from .randaugment import RandAugment, Rng

Augmentation = Callable[[Image.Image, Rng], NDArray[np.uint8]]
"""Image -> pixels (H, W, channels) to train on."""


def generator(seed: int, epoch: int, index: int, repeat: int = 0) -> Rng:
    """Generator for an image in an epoch; `repeat` counts its earlier draws in that epoch."""
    # [..., 1] is taken: see `batch_generator`.
    return np.random.default_rng([seed, epoch, index, *([1 + repeat] if repeat else [])])


def batch_generator(seed: int, epoch: int, batch: int) -> Rng:
    """Generator for what is drawn once per batch."""
    return np.random.default_rng([seed, epoch, batch, 1])


@dataclass(frozen=True)
class RandomErasing:
    """Fill a random box of the image with noise, with the given probability.

    Zhong et al., arXiv 1708.04896: each value in the box is uniform over 0 to 255, which they found
    best. The ranges of area (as a fraction) and aspect (height / width, log-uniform) are those of
    timm's `RandomErasing`, and as there, a box that doesn't fit is redrawn up to ten times.
    """

    probability: float
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)

    def __call__(self, pixels: NDArray[np.uint8], rng: Rng) -> NDArray[np.uint8]:
        """(H, W, channels) -> a new array, or the same one if nothing is erased."""
        if rng.random() >= self.probability:
            return pixels
        height, width, channels = pixels.shape
        box = self._box(height, width, rng)
        if box is None:
            return pixels
        top, left, h, w = box
        erased = pixels.copy()
        erased[top : top + h, left : left + w] = rng.integers(0, 256, (h, w, channels), np.uint8)
        return erased

    def _box(self, height: int, width: int, rng: Rng) -> tuple[int, int, int, int] | None:
        """Top, left, height, width; None if no box fits."""
        low, high = map(math.log, self.aspect)
        for _ in range(10):
            area = height * width * float(rng.uniform(*self.area))
            aspect = math.exp(rng.uniform(low, high))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        return None


@dataclass(frozen=True)
class RandomCrop:
    """A random crop, resized; with `flip`, mirrored with probability 0.5.

    The ranges of `area` (a fraction) and `aspect` (width / height) follow Szegedy et al. (arXiv
    1409.4842), but areas from 0.05 to 1 as in google-research/vision_transformer; the aspect is
    log-uniform, as in torchvision.
    """

    preprocess: Preprocess
    flip: bool = True
    area: tuple[float, float] = (0.05, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, image: Image.Image, rng: Rng) -> NDArray[np.uint8]:
        height, width = self.preprocess.image_size
        box = self._box(image.size, rng)
        filtered = INTERPOLATIONS[self.preprocess.interpolation]
        crop = image.resize((width, height), filtered, box)
        if self.flip and rng.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        channels = self.preprocess.in_channels
        return np.array(crop.convert("L") if channels == 1 else crop).reshape(
            height, width, channels
        )

    def _box(self, size: tuple[int, int], rng: Rng) -> tuple[int, int, int, int]:
        width, height = size
        for _ in range(10):
            area = width * height * float(rng.uniform(self.area[0], self.area[1]))
            low, high = map(math.log, self.aspect)
            aspect = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
                return left, top, left + w, top + h
        side = min(size)  # too narrow for any box: its centre
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side


@dataclass(frozen=True)
class PaddedCrop:
    """Pad the evaluation image with a black border of 1/8 and crop at random, for small images.

    With `flip`, mirrored with probability 0.5: the usual CIFAR augmentation (He et al., arXiv
    1512.03385).
    """

    preprocess: Preprocess
    flip: bool = True

    def __call__(self, image: Image.Image, rng: Rng) -> NDArray[np.uint8]:
        height, width = self.preprocess.image_size
        pixels = self.preprocess(image)
        border = [(height // 8, height // 8), (width // 8, width // 8), (0, 0)]
        padded = np.pad(pixels, border)
        top = int(rng.integers(2 * (height // 8) + 1))
        left = int(rng.integers(2 * (width // 8) + 1))
        crop = padded[top : top + height, left : left + width]
        return np.ascontiguousarray(crop[:, ::-1] if self.flip and rng.random() < 0.5 else crop)


@dataclass(frozen=True)
class NoAugmentation:
    """The image preprocessed as for prediction."""

    preprocess: Preprocess

    def __call__(self, image: Image.Image, rng: Rng) -> NDArray[np.uint8]:
        return self.preprocess(image)


@dataclass(frozen=True)
class Chain:
    """An augmentation, then operations on its pixels, in order."""

    first: Augmentation
    then: tuple[RandAugment | RandomErasing, ...]

    def __call__(self, image: Image.Image, rng: Rng) -> NDArray[np.uint8]:
        pixels = self.first(image, rng)
        for change in self.then:
            pixels = change(pixels, rng)
        return pixels


def augmentation(
    kind: str,
    preprocess: Preprocess,
    *,
    flip: bool,
    rand_augment: tuple[int, int] | None = None,
    erasing: float = 0.0,
) -> Augmentation:
    """The augmentation of a recipe: `kind` is "crop", "pad", "none" or "auto".

    "auto" is "pad" for images of up to 64 pixels, which have no detail to spare, else "crop".
    `rand_augment` is (layers, magnitude), `erasing` a probability.
    """
    if kind == "auto":
        kind = "pad" if max(preprocess.image_size) <= 64 else "crop"
    first: Augmentation
    if kind == "none":
        first = NoAugmentation(preprocess)
    else:
        first = (PaddedCrop if kind == "pad" else RandomCrop)(preprocess, flip)
    then: list[RandAugment | RandomErasing] = []
    if rand_augment:
        then.append(RandAugment(*rand_augment))
    if erasing:
        then.append(RandomErasing(erasing))
    return Chain(first, tuple(then)) if then else first
