"""docs/paper.md: its equalities, and that it holds what the cheap commands print."""

import importlib.util
from pathlib import Path
from types import ModuleType

import mlx.core as mx
import numpy as np
import pytest

from mixer_mlx import MixerConfig, MlpMixer

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def paper() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paper", ROOT / "scripts" / "paper.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
