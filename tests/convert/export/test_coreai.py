"""Core AI assets: what Apple's own runtime computes from the saved asset, on this machine."""

import asyncio
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from exported import random_model

from mixer_mlx import CheckpointError, ConfigError, MixerConfig, MlpMixer, ModelInfo
from mixer_mlx.convert import ExportOptions
from mixer_mlx.convert.export import formats

MIXER = MixerConfig(
    image_size=(16, 24),
    patch_size=8,
    num_blocks=2,
    hidden_dim=32,
    tokens_mlp_dim=12,
    channels_mlp_dim=48,
    num_classes=5,
)
PLAIN = ExportOptions()
CONFIGS = {
    "mixer": MIXER,
    "tanh, grey": MIXER.replace(hidden_act="gelu_tanh", in_channels=1),
    "no head": MIXER.replace(num_classes=0),
    "resmlp": MIXER.replace(model_type="resmlp", tokens_mlp_dim=0),
    "gmlp": MIXER.replace(model_type="gmlp", tokens_mlp_dim=0),
    "gmixer": MIXER.replace(model_type="gmixer", hidden_act="silu"),
}


def run(path: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    authoring = pytest.importorskip("coreai.authoring", reason="NOT RUN: needs the extra coreai")
    from coreai.runtime import NDArray

    async def outputs() -> dict[str, np.ndarray]:
        async with authoring.AIModelAsset.load(path).executable() as model:
            found = await model.load_function("main")({"image": NDArray(image)})
            return {name: value.numpy().copy() for name, value in found.items()}

    return asyncio.run(outputs())


def saved(folder: Path, model: MlpMixer, info: ModelInfo, options: ExportOptions = PLAIN) -> Path:
    pytest.importorskip("coreai.authoring", reason="NOT RUN: needs the extra coreai")
    path = folder / "model.aimodel"
    formats.export(model, info, path, format="coreai", options=options)
    return path


def pixels(config: MixerConfig) -> np.ndarray:
    shape = (1, *config.image_size, config.in_channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_apples_runtime_computes_our_logits(tmp_path: Path, config: MixerConfig) -> None:
    model, info = random_model(config)
    image = pixels(config)
    (found,) = run(saved(tmp_path, model, info), image).values()
    expected = np.array(model(mx.array(info.preprocess.normalize(image))))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_arrays_and_probabilities(tmp_path: Path) -> None:
    model, info = random_model(MIXER)
    image = pixels(MIXER)
    path = saved(tmp_path, model, info, ExportOptions(input="array", softmax=True))
    found = run(path, info.preprocess.normalize(image))
    expected = np.array(mx.softmax(model(mx.array(info.preprocess.normalize(image))), axis=-1))
    np.testing.assert_allclose(found["probabilities"], expected, rtol=1e-4, atol=1e-6)


def test_what_the_asset_says_of_itself(tmp_path: Path) -> None:
    model, info = random_model(MIXER)
    info = info.replace(labels=tuple("abcde"), source={"name": "it", "license": "mit"})
    path = saved(tmp_path, model, info)
    text = (path / "metadata.json").read_text("utf-8")
    assert json.loads(text)["license"] == "mit"
    assert "mixer_mlx.preprocess" in text


def test_assets_are_replaced_only_when_asked(tmp_path: Path) -> None:
    model, info = random_model(MIXER)
    path = saved(tmp_path, model, info)
    with pytest.raises(CheckpointError, match="already exists"):
        formats.export(model, info, path, format="coreai")
    formats.export(model, info, path, format="coreai", force=True)
    (tmp_path / "mine.aimodel").mkdir()
    with pytest.raises(CheckpointError, match="isn't a package"):
        formats.export(model, info, tmp_path / "mine.aimodel", format="coreai", force=True)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Core AI's own writer would end the process, and leave its folder behind."""
    pytest.importorskip("coreai.authoring", reason="NOT RUN: needs the extra coreai")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    with pytest.raises(CheckpointError, match="No space left on device"):
        formats.export(*random_model(MIXER), tmp_path / "m.aimodel", format="coreai")
    assert not list(tmp_path.iterdir())


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coreai", None)
    monkeypatch.setitem(sys.modules, "coreai.authoring", None)
    with pytest.raises(ConfigError, match="the extra `coreai`"):
        formats.export(*random_model(MIXER), tmp_path / "m.aimodel", format="coreai")
    assert not list(tmp_path.iterdir())
