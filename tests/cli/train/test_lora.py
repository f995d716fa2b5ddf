"""A run with adapters: its files, where it can be used, and what it refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from mixer_mlx import load
from mixer_mlx.adapters import fingerprint
from mixer_mlx.convert import convert

SMALL = Path(__file__).parents[2] / "golden" / "jax_square.npz"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, `base`, and `run`, whose adapters aren't zero."""
    folder = tmp_path_factory.mktemp("lora")
    rng = np.random.default_rng(0)
    for channel, name in ((0, "red"), (2, "blue")):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 120, (40, 36, 3), np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")
    convert(SMALL, folder / "base")
    line = ["fine-tune", "photos", "-m", "base", "-o", "run", "-b", "4", "--steps", "4"]
    line += ["--lora-rank", "3", "--lora-scale", "5", "--quiet", "--no-flip"]
    subprocess.run([sys.executable, "-m", "mixer_mlx", *line], cwd=folder, check=True)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder; the run still names the first `base`."""
    shutil.copytree(made, tmp_path / "lora")
    monkeypatch.chdir(tmp_path / "lora")
    return tmp_path / "lora"


def test_files(made: Path) -> None:
    assert sorted(os.listdir(made / "run" / "last")) == [
        "adapter_config.json",
        "adapters.safetensors",
        "config.json",
    ]
    assert json.loads((made / "run" / "last" / "adapter_config.json").read_text()) == {
        "fine_tune_type": "lora",
        "lora_parameters": {"rank": 3, "scale": 5.0, "dropout": 0.0},
        "model": str(made / "base"),
        "model_sha256": fingerprint(load(made / "base", dtype="float32").model),
        "num_layers": load(made / "base").config.num_blocks,
    }
    thin = load_file(made / "run" / "last" / "adapters.safetensors")
    assert all(w.any() for w in thin.values())
    base = load_file(made / "base" / "model.safetensors")
    C = base["norm.weight"].size
    assert thin["blocks.0.channel_mixing.fc1.lora_a"].shape == (3, C)
    assert thin["head.weight"].shape == (2, C)
    assert {name.rpartition(".")[2] for name in thin} == {"lora_a", "lora_b", "weight", "bias"}
    assert not any(name.startswith("frozen") for name in load_state(made / "run"))


def load_state(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "state" / "arrays.safetensors")


def test_fused_weights_are_those_of_the_formula(mixer, made: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = mixer("fuse", made / "run" / "last", tmp_path / "fused")
    assert done.code == 0, done.err
    base = load_file(made / "base" / "model.safetensors")
    thin = load_file(made / "run" / "last" / "adapters.safetensors")
    found = load_file(tmp_path / "fused" / "model.safetensors")
    assert found.keys() == base.keys() | {"head.weight", "head.bias"}
    for name, w in found.items():
        layer = name.removesuffix(".weight")
        if f"{layer}.lora_a" in thin and name.endswith("weight"):
            a, b = (thin[f"{layer}.lora_{x}"].astype(np.float64) for x in "ab")
            assert abs(w - (base[name] + 5 * b @ a)).max() < 1e-5 * abs(w).max(), name
            assert abs(w - base[name]).max() > 1e-4 * abs(w).max(), name
        else:
            assert np.array_equal(w, {**base, **thin}[name]), name


def test_a_run_is_a_model_for_every_command(mixer, made: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run, photo = made / "run", made / "photos" / "red" / "0.png"
    assert mixer("fuse", run, tmp_path / "fused").code == 0
    line = ("predict", photo, "--format", "json", "-m")
    shown = [json.loads(mixer(*line, model).out) for model in (run, tmp_path / "fused")]
    assert shown[0]["predictions"] == shown[1]["predictions"]
    assert mixer("export", run, tmp_path / "out.npz", "--format", "jax").code == 0
    with np.load(tmp_path / "out.npz") as file:
        exported = file["MixerBlock_0/channel_mixing/Dense_0/kernel"]
    own = load_file(tmp_path / "fused" / "model.safetensors")
    assert np.array_equal(exported, own["blocks.0.channel_mixing.fc1.weight"].T)
    assert mixer("resize", run, tmp_path / "large", "--image-size", 64).code == 0
    known = json.loads(mixer("info", run, "--format", "json").out)
    assert known["adapters"]["rank"] == 3
    assert known["adapters"]["base"]["model"] == str(made / "base")
    again = mixer("fine-tune", made / "photos", "-m", run, "-o", tmp_path / "r", "--steps", 2)
    assert again.code == 0, again.err


def spoil(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    weights["norm.bias"] = weights["norm.bias"] + np.float32(1e-6)
    save_file(weights, base / "model.safetensors", metadata={"format": "mlx"})


def test_a_base_that_is_missing_or_another_is_refused(mixer, here: Path) -> None:  # type: ignore[no-untyped-def]
    line = ["fine-tune", "photos", "-m", "base", "-b", 4, "--steps", 4, "--lora-rank", 3]
    line += ["--lora-scale", 5, "--no-flip", "-o", "own"]
    assert mixer(*line).code == 0
    spoil(here / "base")
    found = mixer("predict", "photos/red/0.png", "-m", "own")
    assert found.code == 1
    assert "aren't those they were trained from any more" in found.err
    resumed = mixer(*line, "--resume")
    assert resumed.code == 1
    assert "started with sha256" in resumed.err
    (here / "base").rename(here / "moved")
    found = mixer("predict", "photos/red/0.png", "-m", "own")
    assert found.code == 1
    assert f"own/best needs the model that it was trained from, {here / 'base'}" in found.err


def test_damaged_adapters(mixer, here: Path) -> None:  # type: ignore[no-untyped-def]
    path = here / "run" / "best" / "adapters.safetensors"
    thin = load_file(path)
    del thin["blocks.0.channel_mixing.fc1.lora_a"]
    save_file(thin, path)
    found = mixer("predict", "photos/red/0.png", "-m", "run")
    assert found.code == 1
    assert "blocks.0.channel_mixing.fc1.lora_a" in found.err
    (here / "run" / "best" / "adapter_config.json").write_text("{}")
    found = mixer("predict", "photos/red/0.png", "-m", "run")
    assert "adapter_config.json can't be used" in found.err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("fuse base out", "base has no adapters"),
        ("fine-tune photos -m run -o r --lora-rank 2", "mixer fuse run OUT"),
        ("fine-tune photos -m base -o r --lora-rank 2 --freeze-backbone", "lora_rank freezes"),
        ("fine-tune photos -m base -o r --lora-rank 2 --image-size 64", "mixer resize"),
        ("train photos --variant S/32 -o r --config lora.toml", "needs a trained model"),
        ("fine-tune photos -m whole -o whole --lora-rank 2 --steps 2 --force", "the adapters need"),
    ],
)
def test_what_is_refused(mixer, here: Path, line: str, sentence: str) -> None:  # type: ignore[no-untyped-def]
    (here / "lora.toml").write_text("lora_rank = 2\n")
    if "whole" in line:
        whole = mixer("fine-tune", "photos", "-m", "base", "-o", "whole", "--steps", 1)
        assert whole.code == 0, whole.err
    done = mixer(*line.split())
    assert done.code in (1, 2)
    assert sentence in done.err
    assert not (here / "r").exists()


def test_plan(mixer, made: Path) -> None:  # type: ignore[no-untyped-def]
    line = ("fine-tune", made / "photos", "-m", made / "base", "--plan", "--lora-rank", 2)
    assert "peak memory" in mixer(*line).out
