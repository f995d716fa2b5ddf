"""Writes tests/golden/preprocess.npz: images, and the pixels that a model must be given for them.

Plain Pillow, and nothing of this project. For each case the size after the resize and the corner of
the crop were worked out by hand from timm's `transforms_imagenet_eval` (1.0.22) and the torchvision
transforms it calls:

    target    floor(side / crop_pct) for both sides of image_size
    resize    square target: shorter side -> target, longer -> int(target * longer / shorter);
              other target: round(side / r) with r = min(height / target_h, width / target_w);
              squash: the target itself
    corner    round((side - crop) / 2), halves to the even number

No image loses more than twice as many rows as columns: for these Pillow 13 resizes the columns
first, Pillow 12 the rows, and that moves single values by 1. All else is equal in both.

Run it once, from anywhere: python make_preprocess.py. The file it wrote is frozen.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

GOLDEN = Path(__file__).parents[1] / "golden" / "preprocess.npz"
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

# name: image (w, h), image_size (h, w), resize_mode, crop_pct, interpolation, channels,
#       size after the resize (w, h), corner of the crop (left, top)
CASES = {
    "landscape": ((60, 41), (32, 32), "shorter", 0.875, "bicubic", 3, (52, 36), (10, 2)),
    "portrait": ((41, 60), (32, 32), "shorter", 0.875, "bicubic", 3, (36, 52), (2, 10)),
    "bilinear": ((60, 41), (32, 32), "shorter", 0.875, "bilinear", 3, (52, 36), (10, 2)),
    "half_up": ((65, 48), (32, 32), "shorter", 1.0, "bilinear", 3, (43, 32), (6, 0)),
    "half_down": ((48, 62), (32, 32), "shorter", 1.0, "bicubic", 3, (32, 41), (0, 4)),
    "larger": ((20, 15), (32, 32), "shorter", 0.875, "bicubic", 3, (48, 36), (8, 2)),
    "larger_bilinear": ((15, 20), (32, 32), "shorter", 0.9, "bilinear", 3, (35, 46), (2, 7)),
    "no_resize": ((41, 36), (32, 32), "shorter", 0.875, "bicubic", 3, (41, 36), (4, 2)),
    "much_smaller": ((200, 150), (16, 16), "shorter", 0.875, "bicubic", 3, (24, 18), (4, 1)),
    "usual": ((150, 129), (112, 112), "shorter", 0.875, "bicubic", 3, (148, 128), (18, 8)),
    "squash": ((60, 41), (32, 32), "squash", 0.875, "bicubic", 3, (36, 36), (2, 2)),
    "straight": ((60, 41), (32, 32), "squash", 1.0, "bilinear", 3, (32, 32), (0, 0)),
    "wide": ((60, 41), (24, 40), "shorter", 0.875, "bicubic", 3, (45, 31), (2, 4)),
    "wide_of_tall": ((41, 60), (24, 40), "shorter", 1.0, "bilinear", 3, (40, 59), (0, 18)),
    "tall_squash": ((60, 41), (40, 24), "squash", 0.9, "bilinear", 3, (26, 44), (1, 2)),
    "grey": ((60, 41), (32, 32), "shorter", 0.875, "bicubic", 1, (52, 36), (10, 2)),
}


def noise(width: int, height: int, seed: int) -> np.ndarray:
    """(height, width, 3) uint8: slow colours, hard edges and fine grain."""
    y, x = np.mgrid[:height, :width]
    slow = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1)
    edges = ((x // 5 + y // 3) % 2 * 90)[..., None]
    grain = np.random.default_rng(seed).integers(0, 3, (height, width, 3)) * 20
    return np.clip(slow * 3 // 5 + edges + grain - 20, 0, 255).astype(np.uint8)


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    settings = {}
    for seed, (name, case) in enumerate(CASES.items()):
        shape, image_size, mode, crop_pct, interpolation, channels, resized, (left, top) = case
        pixels = noise(*shape, seed)
        image = Image.fromarray(pixels).convert("RGB" if channels == 3 else "L")
        if image.size != resized:
            image = image.resize(resized, FILTERS[interpolation])
        height, width = image_size
        image = image.crop((left, top, left + width, top + height))
        arrays[f"{name}.input"] = pixels
        arrays[f"{name}.expected"] = np.asarray(image).reshape(height, width, channels)
        settings[name] = {
            "image_size": image_size,
            "resize_mode": mode,
            "crop_pct": crop_pct,
            "interpolation": interpolation,
            "mean": [0.5] * channels,
            "std": [0.5] * channels,
        }
    np.savez_compressed(GOLDEN, settings=np.array(json.dumps(settings)), **arrays)


if __name__ == "__main__":
    main()
