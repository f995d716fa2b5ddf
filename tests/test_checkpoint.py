import json
import os
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors.numpy import load_file, save_file

from mixer_mlx import (
    CheckpointError,
    ConfigError,
    MixerConfig,
    MlpMixer,
    ModelInfo,
    Preprocess,
    checkpoint,
    save,
)

CONFIG = MixerConfig(
    image_size=(24, 32),
    patch_size=8,
    num_blocks=1,
    hidden_dim=16,
    tokens_mlp_dim=8,
    channels_mlp_dim=24,
    num_classes=2,
)
INFO = ModelInfo(CONFIG, Preprocess((24, 32)), ("cat", "dög"), {"licence": "CC0"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "model", MlpMixer(CONFIG), INFO)
    return tmp_path / "model"


def test_what_is_written_is_what_the_docs_say(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config == {
        "model_type": "mlp_mixer",
        "image_size": [24, 32],
        "patch_size": 8,
        "in_channels": 3,
        "num_blocks": 1,
        "hidden_dim": 16,
        "tokens_mlp_dim": 8,
        "channels_mlp_dim": 24,
        "num_classes": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "preprocess": {
            "image_size": [24, 32],
            "resize_mode": "shorter",
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
        "id2label": {"0": "cat", "1": "dög"},
        "source": {"licence": "CC0"},
    }
    shapes = {name: value.shape for name, value in load_file(folder / "model.safetensors").items()}
    mlp = "blocks.0.token_mixing"
    assert shapes == {
        "stem.weight": (16, 8, 8, 3),
        "stem.bias": (16,),
        "blocks.0.norm1.weight": (16,),
        "blocks.0.norm1.bias": (16,),
        f"{mlp}.fc1.weight": (8, 12),
        f"{mlp}.fc1.bias": (8,),
        f"{mlp}.fc2.weight": (12, 8),
        f"{mlp}.fc2.bias": (12,),
        "blocks.0.norm2.weight": (16,),
        "blocks.0.norm2.bias": (16,),
        "blocks.0.channel_mixing.fc1.weight": (24, 16),
        "blocks.0.channel_mixing.fc1.bias": (24,),
        "blocks.0.channel_mixing.fc2.weight": (16, 24),
        "blocks.0.channel_mixing.fc2.bias": (16,),
        "norm.weight": (16,),
        "norm.bias": (16,),
        "head.weight": (2, 16),
        "head.bias": (2,),
    }
    assert sorted(os.listdir(folder.parent)) == ["model"]


def test_load_gives_the_weights_in_the_file(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["stem.bias"] = np.arange(16, dtype=np.float32)
    save_file(weights, folder / "model.safetensors")
    model = checkpoint.load(folder)
    assert checkpoint.read_info(folder) == INFO
    assert np.array(model.stem.bias).tolist() == list(range(16))
    half = checkpoint.load(folder, mx.float16)
    assert {value.dtype for _, value in tree_flatten(half.parameters())} == {mx.float16}


def _drop(weights: dict[str, np.ndarray]) -> None:
    del weights["norm.bias"]


def _add(weights: dict[str, np.ndarray]) -> None:
    weights["extra"] = np.zeros(3, np.float32)


def _reshape(weights: dict[str, np.ndarray]) -> None:
    weights["stem.weight"] = weights["stem.weight"].reshape(16, 3, 8, 8)


def _integers(weights: dict[str, np.ndarray]) -> None:
    weights["head.bias"] = np.zeros(2, np.int32)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_drop, r"norm\.bias is missing"),
        (_add, r"extra isn't part of the model"),
        (_reshape, r"stem\.weight has shape \[16, 3, 8, 8\], not \[16, 8, 8, 3\]"),
        (_integers, r"head\.bias has dtype I32"),
    ],
)
def test_a_bad_tensor_is_named(folder: Path, spoil, says: str) -> None:  # type: ignore[no-untyped-def]
    weights = load_file(folder / "model.safetensors")
    spoil(weights)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=says):
        checkpoint.load(folder)


def _wrapping_header() -> bytes:
    """A file whose shape wraps to 0 bytes in 64 bits: MLX alone would read foreign memory."""
    header = json.dumps(
        {"stem.bias": {"dtype": "F32", "shape": [2**30, 2**30, 16], "data_offsets": [0, 0]}}
    ).encode()
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 64, _wrapping_header()])
def test_broken_weights_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a readable \.safetensors"):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "vit"}, "model_type is 'vit'"),
        ({"num_blocks": 10**12}, "num_blocks"),
        ({"hidden_dim": 65_000, "channels_mlp_dim": 200_000, "num_blocks": 900}, "parameters"),
        ({"preprocess": None}, "preprocess"),
        ({"id2label": {"0": "cat"}}, "1 labels for 2 classes"),
        ({"id2label": {"0": "cat", "2": "dog"}}, "id2label"),
        ({"image_size": [32, 32]}, "24x32"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_config_that_can_not_be_is_refused(
    folder: Path, change: dict[str, object], says: str
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=says):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, "9" * 5000, "\xff"]
)
def test_a_config_that_is_no_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"config\.json can't be used"):
        checkpoint.load(folder)


def test_labels_must_fit_the_classes() -> None:
    with pytest.raises(ConfigError, match="3 labels for 2 classes"):
        ModelInfo(CONFIG, Preprocess((24, 32)), ("a", "b", "c"))


def test_missing_folders_are_made(tmp_path: Path) -> None:
    save(tmp_path / "a" / "b" / "model", MlpMixer(CONFIG), INFO)
    assert checkpoint.read_info(tmp_path / "a" / "b" / "model") == INFO


def test_nothing_is_replaced_without_force(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="force=True"):
        save(folder, MlpMixer(CONFIG), INFO)
    assert (folder / "model.safetensors").read_bytes() == before


def test_force_replaces_a_model_and_leaves_nothing_behind(folder: Path) -> None:
    model = MlpMixer(CONFIG)
    model.stem.bias = mx.ones(16)
    save(folder, model, INFO, force=True)
    assert load_file(folder / "model.safetensors")["stem.bias"].tolist() == [1.0] * 16
    assert sorted(os.listdir(folder.parent)) == ["model"]


def test_force_replaces_nothing_else(folder: Path, tmp_path: Path) -> None:
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"thesis\.txt"):
        save(folder, MlpMixer(CONFIG), INFO, force=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="isn't a folder"):
        save(tmp_path / "file", MlpMixer(CONFIG), INFO, force=True)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_text("x")
    with pytest.raises(CheckpointError, match=r"a\.jpg"):
        save(tmp_path / "images", MlpMixer(CONFIG), INFO, force=True)


def test_a_failed_write_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "model.safetensors").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[write] Unable to write 8 bytes to file.")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(CheckpointError, match="can't be written"):
        save(folder, MlpMixer(CONFIG), INFO, force=True)
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(os.listdir(folder.parent)) == ["model"]


def test_repeated_name_in_safetensors(tmp_path: Path) -> None:
    """Both readers take the last one and drop the other in silence."""
    entry = '"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}'
    for name in ("w", "\\u0077"):
        header = f"{{{entry}, {entry.replace('w', name, 1)}}}".encode()
        path = tmp_path / "model.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
        with pytest.raises(CheckpointError, match="a key is repeated"):
            checkpoint.read_header(path)


def test_names_in_safetensors_stay_what_they_are(tmp_path: Path) -> None:
    """Equal to Unicode's normal form or to a file system, but not to a model."""
    path = tmp_path / "model.safetensors"
    names = ["\u00e9", "e\u0301", "w", "W", "w ", "\uff57", ""]
    save_file({name: np.full(2, i, np.float32) for i, name in enumerate(names)}, path)
    assert checkpoint.read_header(path) == dict.fromkeys(names, ((2,), "F32"))
    assert {name: value[0].item() for name, value in checkpoint.read_tensors(path).items()} == {
        name: i for i, name in enumerate(names)
    }
