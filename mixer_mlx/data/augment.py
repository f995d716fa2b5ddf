"""What training does to an image: a random part of it, perhaps mirrored, and then more.

Drawn from (seed, epoch, index of the image) alone, so that neither the order of threads nor the
number of machines changes a run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixer_mlx.images.preprocess import INTERPOLATIONS, Preprocess

from .randaugment import RandAugment

Rng = np.random.Generator
Augmentation = Callable[[Image.Image, Rng], NDArray[np.uint8]]
"""An image -> the pixels (H, W, channels) to train on."""


def generator(seed: int, epoch: int, index: int, repeat: int = 0) -> Rng:
    """The random numbers of one image in one epoch, the first time or a further one."""
    # [..., 1] is a batch's, see `batch_generator`.
    return np.random.default_rng([seed, epoch, index, *([1 + repeat] if repeat else [])])


def batch_generator(seed: int, epoch: int, batch: int) -> Rng:
    """The random numbers of what is drawn once for a batch."""
    return np.random.default_rng([seed, epoch, batch, 1])


@dataclass(frozen=True)
class RandomErasing:
    """With this probability, one box of the image is filled with noise.

    Zhong et al., arXiv 1708.04896: each value of the box is drawn anew from 0 to 255, which they
    found best. Shares of the area and aspects (height / width, uniform in the logarithm) are those
    of timm's `RandomErasing`; like it, a box that doesn't fit is drawn anew up to ten times.
    """

    probability: float
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)

    def __call__(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """(H, W, channels) -> a new array, or the same one where nothing is erased."""
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

    def _box(
        self, height: int, width: int, rng: np.random.Generator
    ) -> tuple[int, int, int, int] | None:
        """Top, left, height, width."""
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
    """A random part of the image, resized, and with `flip` mirrored in half the cases.

    `area` and `aspect` (width / height) are the ranges of Szegedy et al. (arXiv 1409.4842), with
    the 0.05 to 1 of google-research/vision_transformer; the aspect is drawn uniformly in its
    logarithm, as torchvision does.
    """

    preprocess: Preprocess
    flip: bool = True
    area: tuple[float, float] = (0.05, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, image: Image.Image, rng: Rng) -> NDArray[np.uint8]:
        height, width = self.preprocess.image_size
        box = self._box(image.size, rng)
        filtered = INTERPOLATIONS[self.preprocess.interpolation]
        part = image.resize((width, height), filtered, box)
        if self.flip and rng.random() < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        channels = self.preprocess.in_channels
        return np.array(part.convert("L") if channels == 1 else part).reshape(
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
        side = min(size)  # an image so narrow that nothing fits: its centre
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side


@dataclass(frozen=True)
class PaddedCrop:
    """For small images: the evaluated image with a black border of 1/8, cut at random.

    With `flip` mirrored in half the cases. The usual augmentation of CIFAR (He et al., arXiv
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
        part = padded[top : top + height, left : left + width]
        return np.ascontiguousarray(part[:, ::-1] if self.flip and rng.random() < 0.5 else part)


@dataclass(frozen=True)
class NoAugmentation:
    """The image as the model sees it when it predicts."""

    preprocess: Preprocess

    def __call__(self, image: Image.Image, rng: Rng) -> NDArray[np.uint8]:
        return self.preprocess(image)


@dataclass(frozen=True)
class Chain:
    """An augmentation, and what is then done to its pixels, in this order."""

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
    """What a recipe calls "crop", "pad", "none", or "auto", and what it adds to that.

    Auto means padded crops for images of up to 64 pixels, which have nothing to spare, and else
    random parts. `rand_augment` is (layers, magnitude), `erasing` a probability.
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
