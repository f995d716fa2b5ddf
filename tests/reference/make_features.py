"""Writes tests/golden/features.npz: features of the model in the package, by timm's code.

    mixer export cifar10 exported --format timm
    python make_features.py exported

timm 1.0.31 and PyTorch 2.13 on the CPU, on images in timm_cifar10/expected.npz: `pre_logits`
(16, 128) is forward_head(forward_features(x), pre_logits=True), `tokens` (2, 64, 128) is
forward_features(x) of the first two images, `stem` and `blocks.3` (2, 64, 128) are what hooks see.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
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
    seen = {}
    for name, module in (("stem", model.stem), ("blocks.3", model.blocks[3])):
        module.register_forward_hook(lambda *args, name=name: seen.update({name: args[2]}))
    with np.load(GOLDEN / "timm_cifar10" / "expected.npz") as arrays:
        images = arrays["pictures"]
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        tokens = model.forward_features(x)
        pre_logits = model.forward_head(tokens, pre_logits=True)
    few = {name: value[:2].numpy() for name, value in {**seen, "tokens": tokens}.items()}
    np.savez(GOLDEN / "features.npz", pre_logits=pre_logits.numpy(), **few)


if __name__ == "__main__":
    main()
