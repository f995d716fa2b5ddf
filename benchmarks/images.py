"""Photograph-like JPEG files, the same for the same seed.

The spectrum of a photograph falls off roughly as 1 / f. These images add noise at many sizes to get
that spectrum, with three nearly equal channels, as JPEG compression expects. With `photo`, a real
photograph is cropped and enlarged instead, with grain added.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SMALL = (500, 375)
LARGE = (4000, 3000)
QUALITY = 90
FIRST_OCTAVE, NEXT_OCTAVE = 40.0, 0.8
"""Standard deviation of the coarsest noise, and the factor from each size to the next finer."""

Source = Callable[[np.random.Generator, tuple[int, int]], Image.Image]


def write(
    folder: Path, count: int, size: tuple[int, int], *, photo: Path | None = None, classes: int = 0
) -> Path:
    """Write `count` images of (width, height), in one folder per class unless `classes` is 0.

    Large images are cropped from a few, since drawing one takes longer than reading it.
    """
    draw = from_photo(photo) if photo else synthetic
    rng = np.random.default_rng(0)
    width, height = size
    margin = 256
    sheets = [draw(rng, (width + margin, height + margin)) for _ in range(min(2, count))]
    for number in range(count):
        home = folder / f"class-{number % classes}" if classes else folder
        home.mkdir(parents=True, exist_ok=True)
        left, top = (int(value) for value in rng.integers(0, margin, 2))
        part = sheets[number % len(sheets)].crop((left, top, left + width, top + height))
        part.save(home / f"{number:05}.jpg", quality=QUALITY)
    return folder


def synthetic(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Noise at scales from the whole image to one pixel, each octave a little weaker."""
    width, height = size
    light = np.zeros((height, width, 3), np.float32)
    cells, strength = 2, FIRST_OCTAVE
    while cells < 2 * max(size):
        rows, columns = min(cells, height), min(cells, width)
        grey = rng.normal(size=(rows, columns, 1))
        noise = (grey + 0.25 * rng.normal(size=(rows, columns, 3))).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(noise[:, :, channel])
            smooth = layer.resize(size, Image.Resampling.BICUBIC)
            light[:, :, channel] += strength * np.asarray(smooth)
        cells, strength = 2 * cells, strength * NEXT_OCTAVE
    return Image.fromarray(np.clip(light + 128, 0, 255).astype(np.uint8))


def from_photo(path: Path) -> Source:
    """Random crops of a photograph, at least half of it, enlarged to the size."""
    with Image.open(path) as image:
        photo = image.convert("RGB")

    def draw(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
        fraction = rng.uniform(0.5, 1)
        wide = min(photo.width, photo.height * size[0] / size[1]) * fraction
        high = wide * size[1] / size[0]
        left, top = rng.uniform(0, photo.width - wide), rng.uniform(0, photo.height - high)
        large = photo.resize(size, Image.Resampling.BICUBIC, (left, top, left + wide, top + high))
        grain = rng.normal(0, 4, (size[1], size[0], 1))
        return Image.fromarray(np.clip(np.asarray(large) + grain, 0, 255).astype(np.uint8))

    return draw
