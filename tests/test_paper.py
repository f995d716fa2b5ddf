"""docs/paper.md: its equalities, and that it holds what the cheap commands print."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image
from typer.testing import CliRunner

from mixer_mlx import MixerConfig, MlpMixer
from mixer_mlx.cli.commands import application

ROOT = Path(__file__).parents[1]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def paper() -> ModuleType:
    return script("paper")


@pytest.fixture
def model() -> MlpMixer:
    """On 4 x 6 patches, so that swapped sides would show; its head isn't zero."""
    mx.random.seed(0)
    model = MlpMixer(
        MixerConfig(
            image_size=(16, 24),
            patch_size=4,
            num_blocks=2,
            hidden_dim=12,
            tokens_mlp_dim=10,
            channels_mlp_dim=20,
            num_classes=5,
        )
    )
    model.head.weight = mx.random.normal((5, 12))
    for block in model.blocks:
        for mlp in (block.token_mixing, block.channel_mixing):
            mlp.fc1.bias = mx.random.normal(mlp.fc1.bias.shape)
            mlp.fc2.bias = mx.random.normal(mlp.fc2.bias.shape)
    return model


def test_mixing_is_convolution(paper: ModuleType, model: MlpMixer) -> None:
    differences = paper.convolution_differences(model)
    assert set(differences) == {"token mixing", "channel mixing"}
    assert max(differences.values()) < 1e-5


def test_the_kernel_is_shared_by_channels_and_as_large_as_the_image(paper: ModuleType) -> None:
    """Against sums written out in NumPy."""
    rng = np.random.default_rng(1)
    x, kernels = rng.normal(size=(1, 6, 4)), rng.normal(size=(5, 6))
    found = paper.token_linear_as_convolution(
        mx.array(x.astype(np.float32)), mx.array(kernels.astype(np.float32)), (2, 3)
    )
    expected = np.einsum("os,nsc->noc", kernels, x)
    assert np.array(found) == pytest.approx(expected, abs=1e-5)


def test_a_permuted_mixer_sees_permuted_images_as_before(
    paper: ModuleType, model: MlpMixer
) -> None:
    assert paper.permutation_difference(model) < 1e-5


def test_only_permuting_the_images_changes_the_logits(
    paper: ModuleType, model: MlpMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper, "permute_weights", lambda *_: None)
    assert paper.permutation_difference(model) > 0.01


@pytest.mark.parametrize("name", ["table1", "cost"])
def test_the_page_holds_what_is_printed(
    paper: ModuleType, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paper.COMMANDS[name]()
    shown = "".join(f"    {line}\n" for line in capsys.readouterr().out.splitlines())
    assert f"    $ python scripts/paper.py {name}\n{shown}" in paper.PAGE.read_text("utf-8")


def test_the_page_holds_the_drawn_units(paper: ModuleType, tmp_path: Path) -> None:
    args = ["visualize", "cifar10", "-o", str(tmp_path / "paper"), "--block", "0"]
    shown = CliRunner().invoke(application(), [*args, "--format", "json"]).output
    page = paper.PAGE.read_text("utf-8")
    for line in shown.splitlines():
        row = json.loads(line)
        name, shape = Path(row["file"]).name, ", ".join(map(str, row["shape"]))
        numbers = f" +{row['units']}  {shape} +{row['scale']}"
        assert re.search(rf"^    docs/paper/{re.escape(name)}{numbers}$", page, re.M), name
        with Image.open(row["file"]) as now, Image.open(ROOT / "docs" / "paper" / name) as then:
            assert now.size == then.size


def test_the_page_and_the_shuffle_experiment_have_the_same_models(paper: ModuleType) -> None:
    page = paper.PAGE.read_text("utf-8")
    for name, make in script("shuffle").MODELS.items():
        count = sum(array.size for _, array in tree_flatten(make().parameters()))
        assert re.search(rf"^    {name} +{count:,}( +\d+\.\d%){{3}}$", page, re.M)


@pytest.mark.parametrize(("name", "order"), [("Mixer", "pixels"), ("CNN", "patches")])
def test_the_shuffle_experiment_trains_and_measures(
    monkeypatch: pytest.MonkeyPatch, name: str, order: str
) -> None:
    """Black from white can be told in any order."""
    shuffle = script("shuffle")
    monkeypatch.setattr(shuffle, "BATCH", 4)
    labels = np.arange(8, dtype=np.int32) % 2
    images = np.broadcast_to(labels[:, None, None, None] * 255, (8, 32, 32, 3)).astype(np.uint8)
    mx.random.seed(0)
    model = shuffle.trained(shuffle.MODELS[name](), images, labels, order, 10)
    assert shuffle.accuracy(model, images, labels, order) == 1
