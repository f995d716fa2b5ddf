"""Whether timm and mixer-mlx have the same ResMLP, gMLP and gMixer at full size.

    python check_siblings.py

For each of timm's models, with random weights: mixer-mlx imports a file of them, computes timm's
logits within 1e-4 of the largest, exports the same bits, and timm loads the export by itself and
computes the same logits again. Needs timm and mixer-mlx in one environment, and 2 GiB of memory.
"""

import json
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
import timm
import torch
from make_siblings import MODELS
from safetensors.torch import load_file, save_file

from mixer_mlx.convert import convert, export, import_model


def check(name: str, folder: Path) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    save_file(theirs.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": name}))
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = theirs(images).numpy()
    native = folder / "native"
    convert(folder, native)
    found = np.array(import_model(native).model(mx.array(images.permute(0, 2, 3, 1).numpy())))
    error = abs(found - expected).max() / abs(expected).max()
    export(native, folder / "timm", format="timm")
    source, back = (load_file(f / "model.safetensors") for f in (folder, folder / "timm"))
    assert source.keys() == back.keys()
    assert all(torch.equal(source[key], back[key]) for key in source)
    again = timm.create_model(f"local-dir:{folder / 'timm'}", pretrained=True).eval()
    with torch.inference_mode():
        assert np.array_equal(again(images).numpy(), expected)
    print(
        f"{name}: logits differ by {error:.1e} of the largest; the export is equal, timm loads it"
    )
    assert error < 1e-4


if __name__ == "__main__":
    for model in MODELS:
        with tempfile.TemporaryDirectory() as place:
            check(model, Path(place))
