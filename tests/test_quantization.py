"""Quantised models against a NumPy Mixer, whose weights NumPy dequantised."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from exported import random_model
from reference import numpy_mixer, numpy_quantization
from safetensors.numpy import load_file, save_file

import mixer_mlx
from mixer_mlx import (
    CheckpointError,
    Classifier,
    ConfigError,
    MixerConfig,
    MlpMixer,
    ModelInfo,
    checkpoint,
    save,
)
from mixer_mlx.analysis.explain import Explainer
from mixer_mlx.benchmark.jobs import forward_jobs
from mixer_mlx.convert import Settings, convert, export, resize
from mixer_mlx.features.embed import fingerprint
from mixer_mlx.inference import inference_form
from mixer_mlx.quantization import Quantization, cast, dequantize, quantize
from mixer_mlx.training.prepare import adapted
from mixer_mlx.training.recipes import RECIPES

KINDS = [
    Quantization(),
    Quantization(bits=8, group_size=32),
    Quantization(mode="mxfp4"),
    Quantization(mode="mxfp8"),
]
SIZES: dict[str, Any] = {
    "num_tokens": 6,
    "patch": 8,
    "channels": 3,
    "dim": 64,
    "tokens_mlp": 8,
    "channels_mlp": 128,
    "blocks": 2,
    "classes": 5,
}


TINY = MixerConfig(
    image_size=(32, 32),
    patch_size=16,
    num_blocks=1,
    hidden_dim=64,
    tokens_mlp_dim=8,
    channels_mlp_dim=128,
    num_classes=3,
)


@pytest.fixture(scope="module")
def weights() -> numpy_mixer.Weights:
    made = numpy_mixer.random_weights(np.random.default_rng(0), **SIZES)
    return {name: value.astype(np.float16).astype(np.float32) for name, value in made.items()}


@pytest.fixture
def source(tmp_path: Path, weights: numpy_mixer.Weights) -> Path:
    np.savez(tmp_path / "tiny.npz", **weights)  # type: ignore[arg-type]
    return tmp_path / "tiny.npz"


def convert_tiny(source: Path, kind: Quantization | None = None) -> Path:
    out = source.with_name("model")
    convert(source, out, quantization=kind, settings=Settings(image_size=(16, 24)))
    return out


LARGEST = dict(zip(map(str, KINDS), (1 / 10, 1 / 150, 2 / 8, 64 / 512), strict=True))
"""Errors in parts of the largest number: half a step and its rounding, or what saturates."""

QUANTIZED = {
    "stem": "stem",
    "head": "head",
    **{
        f"blocks.{i}.channel_mixing.fc{j + 1}": f"MixerBlock_{i}/channel_mixing/Dense_{j}"
        for i in range(2)
        for j in range(2)
    },
}
"""Our layers -> the official names."""


def matrix(tensors: dict[str, np.ndarray], layer: str, kind: Quantization) -> np.ndarray:
    """The (out, in) matrix that a file holds for a layer, by NumPy."""
    return numpy_quantization.dequantize(
        *(tensors.get(f"{layer}.{part}") for part in ("weight", "scales", "biases")),  # type: ignore[arg-type]
        **kind.to_dict(),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_logits_are_those_of_a_numpy_mixer(
    source: Path, weights: numpy_mixer.Weights, kind: Quantization
) -> None:
    folder = convert_tiny(source, kind)
    tensors = load_file(folder / "model.safetensors")
    stored = dict(weights)
    for ours, theirs in QUANTIZED.items():
        found = matrix(tensors, ours, kind)
        expected = weights[f"{theirs}/kernel"].reshape(found.shape[1], -1).T
        assert 0 < np.abs(found - expected).max() < LARGEST[str(kind)] * np.abs(expected).max()
        stored[f"{theirs}/kernel"] = found.T.reshape(weights[f"{theirs}/kernel"].shape)
    classifier = mixer_mlx.load(folder, dtype="float32", device="cpu")
    pixels = np.random.default_rng(1).integers(0, 256, (3, 16, 24, 3), np.uint8)
    images = classifier.preprocess.normalize(pixels)
    np.testing.assert_allclose(
        np.array(classifier.forward(pixels)),
        numpy_mixer.forward(stored, images),
        rtol=1e-4,
        atol=2e-4,
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_mlx_dequantises_as_the_format_says(kind: Quantization) -> None:
    """In all codes: words of random bits, in place of what `mx.quantize` would choose."""
    rng = np.random.default_rng(2)
    words = rng.integers(0, 2**32, (64, 64), np.uint32)
    if kind.mode == "mxfp8":  # 0x7F and 0xFF are NaN, which no weight is
        words &= np.uint32(0xBFBFBFBF)
    shape = (64, 64 * 32 // kind.bits // kind.group_size)
    if kind.mode == "affine":
        scales, biases = rng.normal(size=(2, *shape)).astype(np.float32)
        given = [mx.array(scales), mx.array(biases)]
    else:
        scales, biases = rng.integers(100, 140, shape, np.uint8), None
        given = [mx.array(scales)]
    settings: dict[str, Any] = kind.to_dict()
    found = mx.dequantize(mx.array(words), *given, **settings, dtype=mx.float32)
    expected = numpy_quantization.dequantize(words, scales, biases, **settings)
    np.testing.assert_allclose(np.array(found), expected, rtol=1e-6, atol=1e-6)


def test_what_is_written(source: Path) -> None:
    folder = convert_tiny(source, Quantization())
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["quantization"] == {"group_size": 64, "bits": 4, "mode": "affine"}
    assert config["source"]["quantized_from"] == "tiny.npz"
    shapes = {
        name: (value.shape, str(value.dtype))
        for name, value in load_file(folder / "model.safetensors").items()
    }
    # As mlx.nn.QuantizedLinear has them.
    linear = nn.QuantizedLinear(64, 128, group_size=64, bits=4)
    for part in ("weight", "scales", "biases", "bias"):
        assert shapes[f"blocks.0.channel_mixing.fc1.{part}"][0] == tuple(linear[part].shape)
    assert shapes["blocks.0.channel_mixing.fc1.weight"][1] == "uint32"
    assert shapes["stem.weight"] == ((64, 24), "uint32")
    assert shapes["blocks.0.token_mixing.fc1.weight"] == ((8, 6), "float16")
    assert checkpoint.read_info(folder).quantization == Quantization()


def _drop(tensors: dict[str, np.ndarray]) -> None:
    del tensors["head.scales"]


def _signed(tensors: dict[str, np.ndarray]) -> None:
    tensors["head.weight"] = tensors["head.weight"].astype(np.int32)


def _float(tensors: dict[str, np.ndarray]) -> None:
    tensors["head.weight"] = tensors["head.weight"].view(np.float32)


def _integer_norm(tensors: dict[str, np.ndarray]) -> None:
    tensors["norm.weight"] = tensors["norm.weight"].astype(np.uint32)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop, "head.scales is missing"),
        (_signed, "head.weight has dtype I32, not U32"),
        (_float, "head.weight has dtype F32, not U32"),
        (_integer_norm, "norm.weight has dtype U32, not F32 or F16 or BF16"),
    ],
)
def test_damaged_files_are_refused(
    source: Path, damage: Callable[[dict[str, np.ndarray]], None], message: str
) -> None:
    folder = convert_tiny(source, Quantization())
    tensors = load_file(folder / "model.safetensors")
    damage(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "mlx"})
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"group_size": 64, "bits": 3, "mode": "affine"}, "bits is 3; it must be 4 or 8"),
        ({"group_size": 64, "bits": 8, "mode": "mxfp8"}, "group_size is 64; it must be 32 in"),
        ({"group_size": 64, "bits": 4}, "lacks mode"),
        ({"group_size": 64, "bits": 4, "mode": ["affine"]}, "mode is"),
        ({"group_size": 16, "bits": 4, "mode": "nvfp4"}, "mode is 'nvfp4'"),
        (None, "no object 'quantization'"),
        (4, "no object 'quantization'"),
    ],
)
def test_strange_configs_are_refused(source: Path, quantization: object, message: str) -> None:
    folder = convert_tiny(source)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["quantization"] = quantization
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(folder)


def test_quantised_is_saved_only_as_the_info_says(tmp_path: Path) -> None:
    model, info = random_model(TINY)
    small = quantize(model, Quantization())
    for other in (info, info.replace(quantization=Quantization(bits=8))):
        with pytest.raises(CheckpointError, match="quantised only as its info says"):
            save(tmp_path / "model", small, other)
    save(tmp_path / "model", small, info.replace(quantization=Quantization()))
    again = checkpoint.load(tmp_path / "model")
    x = mx.random.normal((2, 32, 32, 3))
    np.testing.assert_array_equal(np.array(again(x)), np.array(small(x)))
    np.testing.assert_allclose(np.array(dequantize(small)(x)), np.array(small(x)), atol=1e-5)
    assert not dequantize(small).quantized
    assert fingerprint(small, info) not in (
        fingerprint(model, info),
        fingerprint(quantize(model, Quantization(group_size=32)), info),
    )


@pytest.mark.parametrize("name", ["ResMLP-S12", "gMLP-Ti/16", "gMixer-12"])
def test_siblings(name: str) -> None:
    model, _ = random_model(MixerConfig.variant(name, image_size=32, num_blocks=1))
    small = quantize(model, Quantization(bits=8))
    x = mx.random.normal((2, 32, 32, 3))
    exact, found = np.array(model(x)), np.array(small(x))
    assert 0 < np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


@pytest.fixture(scope="module")
def small() -> Classifier:
    kind, (model, info) = Quantization(), random_model(TINY)
    info = info.replace(quantization=kind, source={"quantized_from": "cifar10"})
    return Classifier(quantize(model, kind), info, mx.Device(mx.cpu))


def test_what_a_quantised_model_does(small: Classifier, cat: Path) -> None:
    plain = small.replace(model=dequantize(small.model), info=small.info.replace(quantization=None))
    np.testing.assert_allclose(small.logits(cat), plain.logits(cat), atol=1e-4)
    np.testing.assert_allclose(small.embed(cat), plain.embed(cat), atol=1e-4)
    pixels = small.preprocess(cat)
    maps = [Explainer(which, "gradient").map(pixels, 1) for which in (small, plain)]
    np.testing.assert_allclose(*maps, atol=1e-5)
    for job in forward_jobs(small, [2], ["float16"]):
        job.run()
    x = mx.random.normal((2, 32, 32, 3))
    compiled = mx.compile(inference_form(small.model), shapeless=True)
    for images in (x, x[:1]):
        np.testing.assert_allclose(
            np.array(compiled(images)), np.array(plain.model(images)), atol=1e-4
        )


def test_overflow_is_recomputed_in_float32(small: Classifier, cat: Path) -> None:
    half = small.replace(model=cast(small.model, mx.float16))
    for part in (half.model.head.scales, half.model.head.biases, half.model.norm.weight):
        part *= 400
    expected = small.replace(model=cast(half.model, mx.float32)).logits(cat)
    with pytest.warns(RuntimeWarning, match="float16 were not finite"):
        found = half.logits(cat)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_what_changes_weights_is_refused(small: Classifier, tmp_path: Path) -> None:
    for use in (
        lambda: adapted(small.model, small.info, ("a", "b"), RECIPES["quick"]),
        lambda: quantize(small.model, Quantization(), origin="cifar10"),
    ):
        with pytest.raises(ConfigError, match=r"A quantised model can't be .*; use cifar10\."):
            use()
    small.save(tmp_path / "small")
    with pytest.raises(ConfigError, match="can't be resized; use cifar10"):
        resize(tmp_path / "small", tmp_path / "large", image_size=(64, 64))
    for use in (lambda: small.with_head(3), lambda: small.with_channels(1)):
        with pytest.raises(ConfigError, match="the one it was made from"):
            use()


def test_nothing_to_quantise() -> None:
    config = TINY.replace(patch_size=4, hidden_dim=48, channels_mlp_dim=80)
    with pytest.raises(ConfigError, match="multiple of 64"):
        quantize(MlpMixer(config), Quantization())


def test_exports_hold_the_floats(source: Path, tmp_path: Path) -> None:
    kind = Quantization(bits=8)
    folder = convert_tiny(source, kind)
    done = export(folder, tmp_path / "out.npz", format="jax")
    assert "written as the floats that they stand for" in done.notes[0]
    written, tensors = np.load(tmp_path / "out.npz"), load_file(folder / "model.safetensors")
    for ours, theirs in QUANTIZED.items():
        expected = matrix(tensors, ours, kind)
        found = written[f"{theirs}/kernel"].reshape(expected.shape[1], -1).T
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_copy_shares_nothing_that_changes() -> None:
    model = MlpMixer(TINY)
    copy = cast(model, mx.float32)
    copy.freeze()
    copy.norm.weight = copy.norm.weight + 1
    assert model.trainable_parameters()["norm"]["weight"].sum().item() == 64


def test_info_is_that_of_older_folders(tmp_path: Path) -> None:
    """A folder without the key, as all were, is read and written without it."""
    model, info = random_model(TINY)
    save(tmp_path / "model", model, info)
    config = json.loads((tmp_path / "model" / "config.json").read_text("utf-8"))
    assert "quantization" not in config
    assert ModelInfo.from_dict(config).quantization is None
