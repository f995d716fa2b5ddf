"""ONNX files, run by ONNX Runtime, against our logits and timm's."""

import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from exported import random_model

from mixer_mlx import VARIANTS, CheckpointError, ConfigError, MixerConfig, ModelInfo, Preprocess
from mixer_mlx.convert import ExportOptions, export
from mixer_mlx.convert.export import formats
from mixer_mlx.convert.export import onnx as writer
from mixer_mlx.model import MlpMixer

onnx = pytest.importorskip("onnx", reason="NOT RUN: needs the extra onnx")
ort = pytest.importorskip("onnxruntime", reason="NOT RUN: needs onnxruntime")

SMALL = MixerConfig(
    image_size=(24, 40),
    patch_size=8,
    num_blocks=2,
    hidden_dim=32,
    tokens_mlp_dim=24,
    channels_mlp_dim=48,
    num_classes=7,
    hidden_act="gelu_tanh",
)


def run(path: Path, images: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.shape, given.shape[0]) == (["batch", *images.shape[1:]], "batch")
    (logits,) = session.run([made.name], {given.name: images})
    assert logits.shape[0] == len(images)
    return logits


def write(path: Path, model: MlpMixer, info: ModelInfo, **options: object) -> Path:
    formats.export(model, info, path, format="onnx", options=ExportOptions(**options))  # type: ignore[arg-type]
    onnx.checker.check_model(path, full_check=True)
    return path


def pixels(config: MixerConfig, count: int = 2) -> np.ndarray:
    shape = (count, *config.image_size, config.in_channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def ours(model: MlpMixer, info: ModelInfo, images: np.ndarray) -> np.ndarray:
    return np.array(model(mx.array(info.preprocess.normalize(images))))


def close(found: np.ndarray, expected: np.ndarray, limit: float) -> None:
    assert np.abs(found - expected).max() <= limit * np.abs(expected).max()


PUBLISHED = {name: MixerConfig.variant(name, num_blocks=1, num_classes=10) for name in VARIANTS}
QUICK = ("S/32", "S/16", "B/16", "ResMLP-S12", "gMLP-Ti/16", "gMixer-12")


@pytest.mark.parametrize(
    "config",
    [
        *(
            pytest.param(config, marks=() if name in QUICK else pytest.mark.slow)
            for name, config in PUBLISHED.items()
        ),
        SMALL,
        SMALL.replace(hidden_act="gelu"),
        SMALL.replace(in_channels=1, layer_norm_eps=1e-3),
        SMALL.replace(num_classes=0),
    ],
    ids=[*PUBLISHED, "not square", "erf", "grey, another eps", "no head"],
)
def test_onnx_runtime_computes_our_logits(tmp_path: Path, config: MixerConfig) -> None:
    model, info = random_model(config)
    path = write(tmp_path / "model.onnx", model, info)
    images = pixels(config)
    close(run(path, images), ours(model, info, images), 1e-5)
    assert [output.name for output in onnx.load(path).graph.output] == [
        "logits" if config.num_classes else "pre_logits"
    ]


@pytest.mark.parametrize(
    ("weights", "limit"), [("float32", 1e-5), ("float16", 1e-3), ("int8", 0.04)]
)
def test_the_built_in_model_gives_timms_logits(
    golden: Path, tmp_path: Path, weights, limit
) -> None:  # type: ignore[no-untyped-def]
    """Logits that timm computed; the images come as files give them."""
    with np.load(golden / "timm_cifar10" / "expected.npz") as arrays:
        images = arrays["pictures"]
    expected = np.load(golden / "built_in.npz")["logits"]
    path = tmp_path / "cifar10.onnx"
    export("cifar10", path, format="onnx", options=ExportOptions(weights=weights))
    close(run(path, images), expected, limit)
    size = {"float32": 4, "float16": 2, "int8": 1}[weights] * 1_132_170
    assert size < path.stat().st_size < 1.08 * size


def test_normalised_input_and_probabilities(tmp_path: Path) -> None:
    model, info = random_model(SMALL)
    images = pixels(SMALL, 3)
    path = write(tmp_path / "model.onnx", model, info, input="array", softmax=True)
    found = run(path, info.preprocess.normalize(images))
    expected = np.exp(ours(model, info, images).astype(np.float64))
    close(found, expected / expected.sum(axis=1, keepdims=True), 1e-5)
    assert onnx.load(path).graph.output[0].name == "probabilities"
    headless = random_model(SMALL.replace(num_classes=0))
    with pytest.raises(ConfigError, match="no classes"):
        write(tmp_path / "other.onnx", *headless, softmax=True)
    assert not (tmp_path / "other.onnx").exists()


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    export("cifar10", tmp_path / "a.onnx", format="onnx")
    export("cifar10", tmp_path / "b.onnx", format="onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    model = onnx.load(tmp_path / "a.onnx")
    assert (model.ir_version, [entry.version for entry in model.opset_import]) == (10, [20])
    said = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert said["labels"][3] == "cat"
    assert said["preprocess"]["mean"] == [0.5] * 3
    assert said["config"]["patch_size"] == 4
    assert said["source"]
    assert {"Gelu", "LayerNormalization"} <= {node.op_type for node in model.graph.node}
    names = {tensor.name for tensor in model.graph.initializer}
    assert {"stem.weight", "blocks.7.channel_mixing.fc2.bias", "head.weight"} <= names


def test_names_that_are_no_text_survive(tmp_path: Path) -> None:
    labels = ("\udcff", *"bcdefg")
    model, info = random_model(SMALL)
    info = ModelInfo(info.config, info.preprocess, labels)
    said = onnx.load(write(tmp_path / "model.onnx", model, info)).metadata_props
    assert json.loads(next(entry.value for entry in said if entry.key == "labels")) == list(labels)


def test_weights_too_large_for_one_file_lie_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_BYTES", 10_000)
    model, info = random_model(SMALL)
    path = write(tmp_path / "large.onnx", model, info)
    assert {file.name for file in tmp_path.iterdir()} == {"large.onnx", "large.onnx.data"}
    images = pixels(SMALL)
    close(run(path, images), ours(model, info, images), 1e-5)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"large\.onnx\.data already exists"):
        write(path, model, info)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(writer, "MAX_BYTES", 0)
    with pytest.raises(CheckpointError, match=r"can't be written: .*No space left"):
        export("cifar10", tmp_path / "model.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_constant_channel_survives_int8(tmp_path: Path) -> None:
    """A row of zeros has no largest number to divide by."""
    model, info = random_model(SMALL)
    model.head.weight = mx.zeros_like(model.head.weight)
    images = pixels(SMALL)
    found = run(write(tmp_path / "model.onnx", model, info, weights="int8"), images)
    close(found, ours(model, info, images), 1e-5)


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"extra `onnx`; pip install 'mixer-mlx\[onnx\]'"):
        export("cifar10", tmp_path / "model.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_preprocessing_with_other_numbers(tmp_path: Path) -> None:
    """Folded into the stem channel by channel."""
    model, info = random_model(SMALL)
    preprocess = Preprocess(SMALL.image_size, mean=(0.1, 0.4, 0.7), std=(0.2, 0.3, 0.4))
    info = ModelInfo(SMALL, preprocess)
    images = pixels(SMALL)
    found = run(write(tmp_path / "model.onnx", model, info), images)
    close(found, ours(model, info, images), 1e-5)
