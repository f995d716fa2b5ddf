"""Each command with a ResMLP, a gMLP and a gMixer from timm's weights, one after the other."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from mixer_mlx import checkpoint

SIZES = ("--epochs", 1, "-b", 8, "--no-flip")


@pytest.mark.parametrize("family", ["resmlp", "gmlp", "gmixer"])
def test_every_command(  # type: ignore[no-untyped-def]
    mixer, golden: Path, cat: Path, photos: Path, tmp_path: Path, family: str
) -> None:
    def run(*args: object) -> str:
        found = mixer(*args)
        assert found.code == 0, found.err
        return str(found.out)

    source, model, large = golden / "siblings" / f"{family}.safetensors", tmp_path / "m", "large"
    run("convert", source, model, "--image-size", "24x32")
    run("resize", model, tmp_path / large, "--image-size", "48x32")
    resized = checkpoint.read_info(tmp_path / large).config
    assert (resized.model_type, resized.image_size) == (family, (48, 32))
    shown = json.loads(run("info", model, "--format", "json"))
    assert shown["parameters"] == checkpoint.read_info(model).config.num_parameters

    tuned = tmp_path / "run"
    plan = run("fine-tune", photos, "-m", tmp_path / large, *SIZES, "--plan")
    assert "memory" in plan
    run("fine-tune", photos, "-m", tmp_path / large, "-o", tuned, *SIZES)
    assert checkpoint.read_info(tuned / "best").config.model_type == family
    accuracy = json.loads(run("evaluate", photos, "-m", tuned, "--format", "json"))
    assert 0 <= accuracy["top1"] <= 1
    [line] = run("predict", cat, "-m", tuned, "--format", "json").splitlines()
    assert {row["label"] for row in json.loads(line)["predictions"]} == {"red", "blue"}

    run("embed", cat, "-m", tuned, "-o", tmp_path / "f.npy")
    assert np.load(tmp_path / "f.npy").shape == (1, 32)
    for method in ("gradient", "occlusion"):
        why = tmp_path / f"{method}.npy"
        run("explain", cat, "-m", tuned, "--method", method, "-o", why)
        assert np.load(why).shape == (6, 4)
    refused = mixer("visualize", tuned, "-o", tmp_path / "units.png")
    assert (refused.code, "Only an MLP-Mixer" in refused.err) == (1, True)
    times = json.loads(run("benchmark", "-m", tuned, "--repeat", 1, "-b", 2, "--format", "json"))
    assert times["results"][0]["images_per_second"] > 0
    assert times["flops_per_image"] == 2 * checkpoint.read_info(tuned / "best").config.num_macs

    run("export", tuned, tmp_path / "timm", "--format", "timm")
    run("convert", tmp_path / "timm", tmp_path / "again")
    for format, module in (("onnx", "onnx"), ("coreml", "coremltools")):
        if importlib.util.find_spec(module):
            out = tmp_path / f"x.{'onnx' if format == 'onnx' else 'mlpackage'}"
            run("export", tuned, out, "--format", format)
            assert out.exists()
