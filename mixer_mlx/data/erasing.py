"""Random erasing: a box of the picture becomes noise."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RandomErasing:
    """With this probability, one box of the picture is filled with noise.

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
