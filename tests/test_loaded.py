"""What a Classifier is made of: it agrees, stays, and can be copied, saved and given a new head."""

import copy
import io
import json
import pickle
import threading
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image

from mixer_mlx import (
    CheckpointError,
    Classifier,
    ConfigError,
    LazyImage,
    MixerConfig,
    MlpMixer,
    ModelInfo,
    Preprocess,
    load,
    save,
)
from mixer_mlx.channels import with_channels
from mixer_mlx.features.embed import Embedder, Features

CONFIG = MixerConfig(
    image_size=(8, 8), patch_size=4, num_blocks=2, hidden_dim=64, tokens_mlp_dim=8,
    channels_mlp_dim=64, num_classes=4,
)  # fmt: skip
INFO = ModelInfo(CONFIG, Preprocess((8, 8), "squash", 1.0), ("a", "b", "c", "d"))
IMAGES = list(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8))


def model(seed: int = 0, config: MixerConfig = CONFIG) -> MlpMixer:
    mx.random.seed(seed)
    made = MlpMixer(config)
    if config.num_classes:
        made.head.weight = mx.random.normal(made.head.weight.shape)
    mx.eval(made.parameters())
    return made


def expected(network: MlpMixer, pixels: np.ndarray) -> np.ndarray:
    """Logits by plain MLX."""
    return np.array(network(mx.array((pixels / 255 - 0.5) / 0.5).astype(mx.float32)))


@pytest.mark.parametrize("name", ["model", "info", "device", "config", "preprocess", "labels"])
def test_parts_can_not_be_replaced(name: str) -> None:
    classifier = Classifier(model(), INFO)
    embedder = Embedder(model(), INFO)
    for loaded in (classifier, embedder):
        if hasattr(loaded, name):
            with pytest.raises(AttributeError):
                setattr(loaded, name, getattr(classifier, name))


def test_replaced_parts_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixer_mlx.forward.COMPILE_FORWARD_FROM", 0)
    first = Classifier(model(), INFO)
    for _ in range(3):
        np.testing.assert_allclose(
            first.logits(IMAGES), expected(first.model, np.stack(IMAGES)), atol=1e-4
        )
    other = first.replace(model=model(1))
    np.testing.assert_allclose(
        other.logits(IMAGES), expected(model(1), np.stack(IMAGES)), atol=1e-4
    )
    plain = INFO.replace(
        preprocess=Preprocess((8, 8), "squash", 1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    )
    pixels = mx.array(np.stack(IMAGES) / 255).astype(mx.float32)
    found = first.replace(info=plain).logits(IMAGES)
    np.testing.assert_allclose(found, np.array(first.model(pixels)), atol=1e-4)


def test_weights_may_change_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also to lazy ones, which only the thread that made them can compute."""
    monkeypatch.setattr("mixer_mlx.forward.COMPILE_FORWARD_FROM", 0)
    classifier = Classifier(model(), INFO)
    for _ in range(3):
        classifier.logits(IMAGES)
    classifier.model.head.weight = mx.random.normal((4, 64)) * 2
    found = classifier.logits(IMAGES)
    want = expected(classifier.model, np.stack(IMAGES))
    np.testing.assert_allclose(found, want, atol=1e-4)


@pytest.mark.parametrize(
    "changes", [{"num_classes": 10}, {"hidden_act": "gelu_tanh"}, {"layer_norm_eps": 1e-5}]
)
def test_a_model_must_fit_its_info(changes: dict[str, Any], tmp_path: Path) -> None:
    other = ModelInfo(CONFIG.replace(**changes), INFO.preprocess)
    (name,) = changes
    for use in (Classifier, Embedder, lambda *both: save(tmp_path / "model", *both)):
        with pytest.raises(CheckpointError, match=f"the model's {name} is"):
            use(model(), other)
    assert not list(tmp_path.iterdir())


def replaced_head() -> MlpMixer:
    made = model()
    made.head = nn.Linear(64, 10)
    return made


def quantized() -> MlpMixer:
    made = model()
    nn.quantize(made, group_size=64)
    return made


def integers() -> MlpMixer:
    made = model()
    made.norm.bias = mx.zeros(64, mx.int32)
    return made


def without_a_part() -> MlpMixer:
    made = model()
    del made.norm["bias"]
    return made


UNSAVABLE = [replaced_head, quantized, integers, without_a_part]


@pytest.mark.parametrize("make", UNSAVABLE)
def test_what_load_would_refuse_is_not_saved(make: Any, tmp_path: Path) -> None:
    old = tmp_path / "old"
    save(old, model(), INFO)
    before = (old / "model.safetensors").read_bytes()
    for folder, force in ((tmp_path / "new", False), (old, True)):
        with pytest.raises(CheckpointError, match=r"can't be saved|doesn't fit"):
            save(folder, make(), INFO, force=force)
    assert not (tmp_path / "new").exists()
    assert (old / "model.safetensors").read_bytes() == before


def test_a_head_of_another_size_is_refused() -> None:
    with pytest.raises(CheckpointError, match="with_head"):
        Classifier(replaced_head(), INFO)
    classifier = Classifier(model(), INFO)
    classifier.model.head = nn.Linear(64, 10)
    with pytest.raises(CheckpointError, match="with_head"):
        classifier(IMAGES)


def test_a_quantized_model_classifies() -> None:
    made = quantized()
    want = expected(made, np.stack(IMAGES))
    np.testing.assert_allclose(Classifier(made, INFO).logits(IMAGES), want, atol=1e-4)


def test_a_saved_classifier_is_the_same(tmp_path: Path) -> None:
    classifier = Classifier(model(), INFO)
    classifier.save(tmp_path / "model")
    again = load(tmp_path / "model", dtype="float32")
    assert again.info == INFO
    np.testing.assert_array_equal(again.logits(IMAGES), classifier.logits(IMAGES))
    with pytest.raises(CheckpointError, match="already exists"):
        classifier.save(tmp_path / "model")
    classifier.save(tmp_path / "model", force=True)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("way", ["pickle", "deepcopy", "copy"])
def test_copies_give_the_same(way: str, dtype: mx.Dtype) -> None:
    network = model()
    network.set_dtype(dtype)
    classifier = Classifier(network, INFO)
    embedder = Embedder(network, INFO, features=Features("stem", normalize=True))
    for loaded in (classifier, embedder):
        if way == "pickle":
            again = pickle.loads(pickle.dumps(loaded))  # noqa: S301
        else:
            again = getattr(copy, way)(loaded)
        assert type(again) is type(loaded)
        assert (again.info, again.device) == (INFO, loaded.device)
        assert again.model.dtype == dtype
        one, other = (
            x.logits(IMAGES) if isinstance(x, Classifier) else x.array(IMAGES)
            for x in (loaded, again)
        )
        np.testing.assert_array_equal(one, other)
    assert again.features == embedder.features  # type: ignore[attr-defined]


def test_a_pickle_names_its_device() -> None:
    state = Classifier(model(), INFO, mx.Device(mx.cpu)).__getstate__()
    assert state["device"] == "cpu"


def test_a_new_head() -> None:
    """Zeros, as Flax initialises a head, so that all classes are equally probable."""
    classifier = Classifier(model(), INFO)
    for classes, labels in ((3, ()), (["x", "y", "z"], ("x", "y", "z"))):
        found = classifier.with_head(classes)
        assert found.labels == labels
        assert found.config == CONFIG.replace(num_classes=3)
        np.testing.assert_allclose(found.probabilities(IMAGES), 1 / 3, atol=1e-6)
        np.testing.assert_array_equal(found.embed(IMAGES), classifier.embed(IMAGES))
    half = model()
    half.set_dtype(mx.float16)
    assert {w.dtype for _, w in tree_flatten(half.with_head(2).parameters())} == {mx.float16}
    bare = half.with_head(0)
    assert "head" not in bare
    assert bare.config.num_classes == 0
    assert bare.with_head(7).head.weight.shape == (7, 64)
    assert classifier.config == CONFIG
    for wrong in (0, -1, [], True):
        with pytest.raises(ConfigError, match="classes"):
            classifier.with_head(wrong)  # type: ignore[arg-type]


def test_a_grey_image_is_what_it_is_as_rgb() -> None:
    classifier = Classifier(model(), INFO)
    grey = classifier.with_channels(1)
    assert (grey.config.in_channels, grey.preprocess.mean) == (1, (0.5,))
    plain = [image[..., 0] for image in IMAGES]
    np.testing.assert_allclose(grey.logits(plain), classifier.logits(plain), atol=1e-4)


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_other_channels_are_those_of_timm(channels: int) -> None:
    """timm's adapt_input_conv: repeat along the input channels, cut, multiply by 3 / channels."""
    network = model()
    old = np.array(network.stem.weight)
    found = np.array(with_channels(network, channels).stem.weight)
    repeated = np.tile(old, (1, 1, 1, -(-channels // 3)))[..., :channels] * 3 / channels
    np.testing.assert_allclose(found, repeated, rtol=1e-6)
    made = Classifier(network, INFO).with_channels(channels)
    assert made.forward(np.zeros((2, 8, 8, channels), np.uint8)).shape == (2, 4)
    assert len(made.preprocess.std) == channels


def test_channels_that_can_not_be_adapted() -> None:
    grey = Classifier(model(), INFO).with_channels(1)
    assert with_channels(grey.model, 1) is grey.model
    with pytest.raises(ConfigError, match="takes 1 channels; only a model for 3"):
        grey.with_channels(3)
    with pytest.raises(ConfigError, match="in_channels"):
        grey.with_channels(0)


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    """As huggingface_hub's mixin makes one before it saves."""
    Classifier(model(), INFO).save(tmp_path)
    assert load(tmp_path).info == INFO
    with pytest.raises(CheckpointError, match="already exists"):
        Classifier(model(), INFO).save(tmp_path)


def test_results_as_records(tmp_path: Path) -> None:
    classifier = Classifier(model(), INFO)
    path = tmp_path / "image.png"
    Image.fromarray(IMAGES[0]).save(path)
    file = io.BytesIO(path.read_bytes())
    missing = LazyImage("archive.zip/missing.png", lambda: b"")
    found = [one.to_dict() for one in classifier.predict([path, file, missing], k=2)]
    first = classifier(path, k=2)
    assert found[0] == {
        "image": str(path),
        "index": first[0].index,
        "label": first[0].label,
        "probability": first[0].probability,
        "error": None,
        "predictions": [vars(one) for one in first],
    }
    assert found[1]["image"] is None
    assert found[2]["image"] == "archive.zip/missing.png"
    assert (found[2]["label"], found[2]["predictions"]) == (None, [])
    assert "empty" in found[2]["error"]
    assert json.loads(json.dumps(found)) == found


def test_probabilities_and_logits() -> None:
    classifier = Classifier(model(), INFO)
    want = expected(classifier.model, np.stack(IMAGES)).astype(np.float64)
    logits, probabilities = classifier.logits(IMAGES), classifier.probabilities(IMAGES)
    assert (logits.dtype, logits.shape) == (np.float32, (3, 4))
    np.testing.assert_allclose(logits, want, atol=1e-4)
    powers = np.exp(want)
    np.testing.assert_allclose(probabilities, powers / powers.sum(1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(classifier.logits(IMAGES[0]).shape, (4,))
    assert classifier.logits([]).shape == (0, 4)
    assert classifier.probabilities(iter(IMAGES), batch_size=2).shape == (3, 4)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
def test_counts_that_make_no_sense(value: Any) -> None:
    classifier = Classifier(model(), INFO)
    for name in ("k", "batch_size"):
        with pytest.raises(ConfigError, match=name):  # at once, not with the first result
            classifier.predict(IMAGES, **{name: value})
    with pytest.raises(ConfigError, match="k is"):
        classifier(IMAGES, k=value)
    with pytest.raises(ConfigError, match="k is"):
        classifier.predictions(np.stack(IMAGES), k=value)
    for use in (classifier.logits, classifier.probabilities, classifier.embed):
        with pytest.raises(ConfigError, match="batch_size"):
            use(IMAGES, batch_size=value)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 8, 8, 3), np.uint16),
        np.zeros((2, 8, 8, 3), np.int8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        mx.zeros((2, 8, 8, 3)),
        [[1]],
    ],
)
def test_pixels_that_were_not_preprocessed(pixels: Any) -> None:
    classifier = Classifier(model(), INFO)
    uses = (classifier.forward, classifier.predictions, Embedder(model(), INFO).pixels)
    for use in uses:
        with pytest.raises(ConfigError, match=r"uint8 and shape \(N, 8, 8, 3\)"):
            use(pixels)


def test_threads_that_compile_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX puts placeholders into the model while it traces."""
    monkeypatch.setattr("mixer_mlx.forward.COMPILE_FORWARD_FROM", 0)
    classifier = Classifier(model(), INFO)
    want = classifier.logits(IMAGES)
    failed: list[BaseException] = []

    def work(size: int) -> None:
        try:
            for _ in range(4):
                found = classifier.logits(IMAGES[:size])
                np.testing.assert_allclose(found, want[:size], atol=1e-5)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(1 + i % 3,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
