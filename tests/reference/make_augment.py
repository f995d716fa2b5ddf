"""Writes tests/golden/augment.npz: what timm makes of images and batches.

timm 1.0.31, PyTorch 2.13 and Pillow 13, and nothing of this project. timm's three files are loaded
by their paths, as the whole of timm needs more.

    image                      (16, 24, 3) uint8
    <operation>/<magnitude>/<n>  the image after timm's function of that operation; n is + or -
                                 for one that goes both ways, else 0
    pair, pair_labels            (2, 9, 7, 3) uint8, (2,)
    mixup/, cutmix/              for some seeds, by timm's `Mixup` in its batch mode without label
                                 smoothing: share (its lambda), pixels (seeds, 2, 9, 7, 3) float32
                                 and target (seeds, 2, 5); of cutmix also centre (y, x)
    erasing                      top, left, height and width of 4,000 boxes that timm's
                                 `RandomErasing` cut out of 40 x 60 pixels, as their 9 deciles
    erased                       how many of 4,000 images it changed with a probability of 0.3

The strengths of RandAugment's operations are worked out by hand from the TensorFlow code
(`distort_image_with_randaugment` in google-research/big_vision, pp/autoaugment.py), whose distances
are for 224 pixels: magnitude 15 shifts by 150 of 224.

Run it once, from anywhere: python make_augment.py. The file it wrote is frozen.
"""

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image

GOLDEN = Path(__file__).parents[1] / "golden" / "augment.npz"
GREY = {"fillcolor": (128, 128, 128), "resample": Image.Resampling.NEAREST}

# operation: timm's name, and what it is given at magnitude 7 and at 15
STRENGTHS = {
    "auto_contrast": ("AutoContrast", (), ()),
    "equalize": ("Equalize", (), ()),
    "invert": ("Invert", (), ()),
    "posterize": ("Posterize", (2,), (6,)),
    "solarize": ("Solarize", (179,), (384,)),
    "solarize_add": ("SolarizeAdd", (77,), (165,)),
    "color": ("Color", (1.36,), (2.8,)),
    "contrast": ("Contrast", (1.36,), (2.8,)),
    "brightness": ("Brightness", (1.36,), (2.8,)),
    "sharpness": ("Sharpness", (1.36,), (2.8,)),
}
BOTH_WAYS = {
    "rotate": ("Rotate", 21.0, 45.0),
    "shear_x": ("ShearX", 0.21, 0.45),
    "shear_y": ("ShearY", 0.21, 0.45),
    "translate_x": ("TranslateXRel", 70 / 224, 150 / 224),
    "translate_y": ("TranslateYRel", 70 / 224, 150 / 224),
}


def timm(name: str) -> ModuleType:
    root = Path(importlib.util.find_spec("timm").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location(f"timm_{name}", root / "data" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def operations(arrays: dict[str, np.ndarray]) -> None:
    functions = timm("auto_augment").NAME_TO_OP
    y, x = np.mgrid[:16, :24]
    slow = np.stack([20 + 8 * x, 40 + 11 * y, 190 - 4 * x - 4 * y], -1)
    edges = ((x // 6 + y // 4) % 2 * 50)[..., None]
    pixels = np.clip(slow + edges - 25, 0, 240).astype(np.uint8)
    arrays["picture"] = pixels
    image = Image.fromarray(pixels)
    for name, (theirs, *strengths) in STRENGTHS.items():
        for magnitude, given in zip((7, 15), strengths, strict=True):
            arrays[f"{name}/{magnitude}/0"] = np.array(functions[theirs](image, *given, **GREY))
    for name, (theirs, *strengths) in BOTH_WAYS.items():
        for magnitude, given in zip((7, 15), strengths, strict=True):
            for sign, value in (("+", given), ("-", -given)):
                found = functions[theirs](image, value, **GREY)
                arrays[f"{name}/{magnitude}/{sign}"] = np.array(found)


def mixtures(arrays: dict[str, np.ndarray]) -> None:
    module = timm("mixup")
    pair = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    labels = np.array([3, 1])
    arrays |= {"pair": pair, "pair_labels": labels.astype(np.int32)}
    for name, alphas in (("mixup", (0.5, 0.0)), ("cutmix", (0.0, 1.0))):
        mix = module.Mixup(*alphas, label_smoothing=0.0, num_classes=5)
        found = {"share": [], "pixels": [], "target": [], "centre": []}
        for seed in range(6):
            np.random.seed(seed)
            share, _ = mix._params_per_batch()
            found["share"].append(share)
            found["centre"].append((np.random.randint(0, 9), np.random.randint(0, 7)))
            np.random.seed(seed)
            x = torch.from_numpy(pair).float().permute(0, 3, 1, 2).clone()
            x, target = mix(x, torch.from_numpy(labels))
            found["pixels"].append(x.permute(0, 2, 3, 1).numpy())
            found["target"].append(target.numpy())
        if name == "mixup":
            del found["centre"]
        arrays |= {f"{name}/{key}": np.array(values) for key, values in found.items()}


def erasing(arrays: dict[str, np.ndarray]) -> None:
    module = timm("random_erasing")
    random.seed(0)
    erase = module.RandomErasing(1.0, device="cpu")
    boxes = []
    for _ in range(4000):
        y, x = np.nonzero(erase(torch.ones(1, 40, 60))[0].numpy() == 0)
        boxes.append((y.min(), x.min(), np.ptp(y) + 1, np.ptp(x) + 1))
    arrays["erasing"] = np.quantile(np.array(boxes), np.arange(1, 10) / 10, axis=0)
    erase = module.RandomErasing(0.3, device="cpu")
    changed = [bool((erase(torch.ones(1, 40, 60)) == 0).any()) for _ in range(4000)]
    arrays["erased"] = np.array(sum(changed))


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    operations(arrays)
    mixtures(arrays)
    erasing(arrays)
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    main()
