import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mixer_mlx
from mixer_mlx.cli.commands import application


def test_version(mixer) -> None:  # type: ignore[no-untyped-def]
    assert mixer("--version").out == f"mixer-mlx {mixer_mlx.__version__}\n"


def test_help_names_every_command(mixer) -> None:  # type: ignore[no-untyped-def]
    run = mixer("--help")
    assert run.code == 0
    for command in application().registered_commands:
        assert f"\n  {command.name} " in run.out
        assert mixer(command.name, "--help").code == 0


MIXER = Path(sys.executable).with_name("mixer")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    run = subprocess.run(
        [MIXER],
        env={**os.environ, "_MIXER_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "_MIXER_COMPLETE" in run.stdout


def test_completion_of_a_command() -> None:
    run = subprocess.run(
        [MIXER],
        env={
            **os.environ,
            "_MIXER_COMPLETE": "complete_bash",
            "COMP_WORDS": "mixer pred",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split() == ["predict"]


def test_models(mixer) -> None:  # type: ignore[no-untyped-def]
    assert "cifar10" in mixer("models").out
    row = json.loads(mixer("models", "--format", "json").out.splitlines()[0])
    assert row["name"] == "cifar10"
    first, *others = csv.DictReader(io.StringIO(mixer("models", "--format", "csv").out))
    assert (first["name"], first["parameters"]) == ("cifar10", "1132170")
    assert len(others) == 30
    accuracies = [float(row["top1"] or 0) for row in others]
    assert accuracies == sorted(accuracies, reverse=True)
    assert {row["licence"] for row in others} == {"Apache-2.0"}


def test_info(mixer) -> None:  # type: ignore[no-untyped-def]
    known = json.loads(mixer("info", "cifar10", "--format", "json").out)
    assert known["parameters"] == 1_132_170  # as PyTorch counts timm's model
    assert known["labels"][3] == "cat"
    assert known["tokens"] == 64
    assert known["preprocess"]["crop_pct"] == 1.0
    assert known["assumed"] == []
    table = mixer("info", "cifar10").out
    assert "1,132,170" in table
    assert "airplane, automobile" in table


def test_info_of_a_bare_file_says_what_it_assumes(mixer, golden: Path) -> None:  # type: ignore[no-untyped-def]
    known = json.loads(mixer("info", golden / "jax_square.npz", "--format", "json").out)
    assert len(known["assumed"]) == 3


def test_env(mixer) -> None:  # type: ignore[no-untyped-def]
    known = json.loads(mixer("env", "--format", "json").out)
    assert known["device"] in {"cpu", "gpu"}
    assert mixer("env").out


def test_convert_says_what_it_assumes_and_replaces_nothing(  # type: ignore[no-untyped-def]
    mixer, golden: Path, tmp_path: Path
) -> None:
    args = ("convert", golden / "jax_tiny.npz", tmp_path / "model", "--image-size", "24x32")
    run = mixer(*args)
    assert run.code == 0
    assert "Assumed: activation gelu_tanh" in run.err
    assert "--labels FILE" in run.err.splitlines()[-1]
    expected = np.load(golden / "jax_tiny_expected.npz")
    model = mixer_mlx.load(tmp_path / "model", dtype="float32").model
    import mlx.core as mx

    assert abs(np.array(model(mx.array(expected["images"]))) - expected["logits"]).max() < 1e-5
    again = mixer(*args)
    assert again.code == 1
    assert "--force" in again.err
    names = tmp_path / "names.txt"
    names.write_text("".join(f"class {i}\n" for i in range(expected["logits"].shape[1])))
    run = mixer(*args, "--force", "--labels", names)
    assert run.code == 0
    assert "--labels" not in run.err


def test_a_converted_model_for_grey_images(mixer, cat: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    args = ("convert", "cifar10", tmp_path / "grey", "--in-channels", "1")
    assert mixer(*args, "--dtype", "float32").code == 0
    grey = mixer_mlx.load(tmp_path / "grey", dtype="float32")
    assert grey.config.in_channels == 1
    photo = Image.open(cat).convert("L")
    colour = mixer_mlx.load("cifar10", dtype="float32").logits(photo.convert("RGB"))
    assert abs(grey.logits(photo) - colour).max() < 1e-4
    run = mixer("convert", tmp_path / "grey", tmp_path / "more", "--in-channels", "4")
    assert (run.code, "only a model for 3 can be adapted" in run.err) == (1, True)


def test_convert_without_a_size_names_the_option(mixer, golden: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("convert", golden / "jax_tiny.npz", tmp_path / "model")
    assert run.code == 1
    assert "--image-size HxW" in run.err
    assert mixer("convert", golden / "jax_tiny.npz", tmp_path / "m", "--image-size", "x").code == 2
    assert os.listdir(tmp_path) == []


def test_interrupt_is_130() -> None:
    code = (
        "import sys, mixer_mlx.cli.main as m, mixer_mlx.convert as c\n"
        "def stop(*a, **k): raise KeyboardInterrupt\n"
        "c.load = stop; sys.argv = ['mixer', 'predict', '.', '-m', 'cifar10']; m.main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 130
    assert "Traceback" not in run.stderr


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "mixer_mlx", "info", "nothing"],
        env={**os.environ, "MIXER_MLX_DEBUG": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "Traceback" in run.stderr


def test_resize(mixer, golden: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A golden image tiled 2 x 2 keeps the reference code's logits."""
    run = mixer("resize", golden / "jax_square.npz", tmp_path / "large", "--image-size", 64)
    assert run.code == 0, run.err
    expected = np.load(golden / "jax_square_expected.npz")
    import mlx.core as mx

    model = mixer_mlx.load(tmp_path / "large", dtype="float32").model
    tiled = mx.array(np.tile(expected["images"], (1, 2, 2, 1)))
    assert abs(np.array(model(tiled)) - expected["logits"]).max() < 1e-5
    known = json.loads(mixer("info", tmp_path / "large", "--format", "json").out)
    assert known["preprocess"]["image_size"] == [64, 64]
    assert known["source"]["resized_from"] == [32, 32]
    refused = mixer("resize", golden / "jax_square.npz", tmp_path / "other", "--image-size", "48")
    assert refused.code == 1
    assert "64x64, 96x96" in refused.err


def test_quantised_models(mixer, tmp_path: Path, cat: Path, photos: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "small"
    made = mixer("convert", "cifar10", out, "--quantize", "--q-bits", "8", "--q-group-size", "32")
    assert made.code == 0
    assert "Quantised to 8 bits, affine, groups of 32: 2.16 MiB before, 1.30 after." in made.err
    known = json.loads(mixer("info", out, "--format", "json").out)
    assert known["quantization"] == {"group_size": 32, "bits": 8, "mode": "affine"}
    assert known["weights_mib"] == 1.3
    assert known["source"]["quantized_from_mib"] == 2.16
    found = json.loads(mixer("predict", cat, "-m", out, "--format", "json").out)
    assert found["predictions"][0]["label"] == "cat"
    refused = mixer("fine-tune", photos, "-m", out, "-o", tmp_path / "run")
    assert refused.code == 1
    assert "A quantised model can't be fine-tuned; use cifar10." in refused.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--q-bits", "8"], "need --quantize"),
        (["--quantize", "--q-bits", "5"], "bits is 5; it must be 4 or 8 in the mode affine"),
        (["--quantize", "--q-mode", "mxfp8", "--q-group-size", "64"], "it must be 32 in the mode"),
    ],
)
def test_quantisation_that_mlx_lacks(mixer, tmp_path: Path, flags: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    run = mixer("convert", "cifar10", tmp_path / "small", *flags)
    assert run.code == 2
    assert message in " ".join(run.err.split())
