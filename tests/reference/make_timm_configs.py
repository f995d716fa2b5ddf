"""Writes tests/golden/timm_configs.json: configs with which timm and transformers load our exports.

    python make_timm_configs.py FOLDER...

Each FOLDER was written by `mixer export MODEL FOLDER --format timm` and holds, as logits.npz, some
normalised `images` (NHWC) and the `logits` that mixer-mlx computes for them. timm 1.0.31 and
transformers 5.24 load it by themselves, on PyTorch 2.13, and must agree within 1e-4.
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from transformers import AutoModelForImageClassification

GOLDEN = Path(__file__).parents[1] / "golden"


def main() -> None:
    configs = {}
    for folder in map(Path, sys.argv[1:]):
        with np.load(folder / "logits.npz") as arrays:
            images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2)
            expected = arrays["logits"]
        named = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        wrapped = AutoModelForImageClassification.from_pretrained(folder).eval()
        with torch.inference_mode():
            found = {
                "timm": named(images).numpy(),
                "transformers": wrapped(images).logits.numpy(),
            }
        for name, logits in found.items():
            error = np.abs(logits - expected).max()
            print(f"{folder.name}: {name} differs by {error:.1e} of {np.abs(expected).max():.2f}")
            assert error < 1e-4
        if labels := json.loads((folder / "config.json").read_text()).get("label_names"):
            assert list(wrapped.config.id2label.values()) == labels
        configs[folder.name] = json.loads((folder / "config.json").read_text())
    text = json.dumps(configs, indent=1, sort_keys=True)
    (GOLDEN / "timm_configs.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
