"""Writes tests/golden/built_in.npz: the logits of the model in the package, by timm's code.

    mixer export cifar10 exported --format timm
    python make_built_in.py exported [CIFAR10/test]

timm 1.0.31 and PyTorch 2.13 on the CPU, on the 16 images in timm_cifar10/expected.npz. With a
folder of the test images it also prints how many of them are classified rightly.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models.mlp_mixer import MlpMixer

GOLDEN = Path(__file__).parents[1] / "golden"


def main() -> None:
    exported = Path(sys.argv[1])
    config = json.loads((exported / "config.json").read_text())
    model = MlpMixer(num_classes=config["num_classes"], **config["model_args"])
    weights = load_file(exported / "model.safetensors")
    model.load_state_dict({name: w.float() for name, w in weights.items()})
    model.eval()

    def logits(pixels: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            return model(x).numpy()

    with np.load(GOLDEN / "timm_cifar10" / "expected.npz") as arrays:
        images = arrays["pictures"]
    np.savez(GOLDEN / "built_in.npz", logits=logits(images))
    if len(sys.argv) > 2:
        right = total = 0
        for label, folder in enumerate(sorted(Path(sys.argv[2]).iterdir())):
            pixels = np.stack(
                [np.asarray(Image.open(path).convert("RGB")) for path in folder.iterdir()]
            )
            right += int((logits(pixels).argmax(1) == label).sum())
            total += len(pixels)
        print(f"{right} of {total} right")


if __name__ == "__main__":
    main()
