from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mixer_mlx import Classifier, ConfigError, ImageError, MlpMixer, load
from mixer_mlx.convert import Settings, import_model
from mixer_mlx.features.embed import (
    CONFIG_FIELDS,
    PREPROCESS_FIELDS,
    Embedder,
    Embedding,
    Features,
    fingerprint,
)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load("cifar10", dtype="float32")


@pytest.fixture(scope="module")
def theirs(golden: Path) -> dict[str, np.ndarray]:
    """timm's features, see tests/reference/make_features.py."""
    with np.load(golden / "features.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def pictures(golden: Path) -> list[np.ndarray]:
    with np.load(golden / "timm_cifar10" / "expected.npz") as arrays:
        return list(arrays["pictures"])


def test_the_default_is_timms_forward_head(
    classifier: Classifier, theirs: dict[str, np.ndarray], pictures: list[np.ndarray]
) -> None:
    found = classifier.embed(pictures)
    assert found.dtype == np.float32
    assert abs(found - theirs["pre_logits"]).max() < 1e-4


@pytest.mark.parametrize(
    ("layer", "name"), [("pre-logits", "tokens"), ("stem", "stem"), ("blocks.3", "blocks.3")]
)
def test_layers_are_timms(
    classifier: Classifier,
    theirs: dict[str, np.ndarray],
    pictures: list[np.ndarray],
    layer: str,
    name: str,
) -> None:
    tokens = classifier.embed(pictures[:2], layer=layer, pool="none")
    assert tokens.shape == (2, 64, 128)
    assert abs(tokens - theirs[name]).max() < 1e-4
    means = classifier.embed(pictures[:2], layer=layer)
    assert abs(means - theirs[name].mean(axis=1)).max() < 1e-4


def test_golden_intermediates(golden: Path) -> None:
    """Flax's, of a model whose images aren't square."""
    settings = Settings(image_size=(24, 32))
    model = import_model(golden / "jax_tiny.npz", settings=settings).model
    with np.load(golden / "jax_tiny_expected.npz") as expected:
        x = mx.array(expected["images"])
        for layer, name in (("blocks.0", "block_0"), ("blocks.1", "block_1")):
            found = np.array(Features(layer, "none")(model, x))
            assert abs(found - expected[name]).max() < 1e-4
        assert abs(np.array(Features()(model, x)) - expected["pre_logits"]).max() < 1e-4


def test_normalized_vectors_have_length_one(
    classifier: Classifier, theirs: dict[str, np.ndarray], pictures: list[np.ndarray]
) -> None:
    found = classifier.embed(pictures, normalize=True)
    lengths = np.linalg.norm(theirs["pre_logits"], axis=1, keepdims=True)
    assert abs(found - theirs["pre_logits"] / lengths).max() < 1e-5


def test_a_stream_continues_and_a_list_raises(
    classifier: Classifier, cat: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("text")
    images = [cat, bad, cat, cat, bad]
    (alone,) = classifier.embed([cat])
    for batch_size in (1, 2, 64):
        stream: Iterator[Embedding] = classifier.embed(iter(images), batch_size=batch_size)
        found = list(stream)
        assert [image for image, _, _ in found] == images
        assert [error is None for _, _, error in found] == [True, False, True, True, False]
        assert all(abs(one.vector - alone).max() < 1e-5 for one in found if one.vector is not None)
    with pytest.raises(ImageError):
        classifier.embed(images)
    assert classifier.embed([]).shape == (0, 128)


@pytest.mark.parametrize("layer", ["blocks.8", "blocks.-1", "blocks", "head", "Stem", "blocks.00x"])
def test_an_unknown_layer(classifier: Classifier, cat: Path, layer: str) -> None:
    with pytest.raises(ConfigError, match=r"blocks\.0 to blocks\.7, or pre-logits"):
        classifier.embed([cat], layer=layer)


def test_a_model_without_a_head(classifier: Classifier, cat: Path) -> None:
    config = classifier.config.replace(num_classes=0)
    model = MlpMixer(config)
    weights = {k: v for k, v in _parameters(classifier.model).items() if k[:5] != "head."}
    model.load_weights(list(weights.items()))
    info = replace(classifier.info, config=config, labels=())
    found = Embedder(model, info).array([cat])
    assert abs(found - classifier.embed([cat])).max() < 1e-6
    assert fingerprint(model, info) == fingerprint(classifier.model, classifier.info)


def test_a_fingerprint_is_that_of_the_features(classifier: Classifier) -> None:
    ours = fingerprint(classifier.model, classifier.info)
    assert ours == "65d3d4b386522dae"  # as in files of vectors that exist
    half = load("cifar10", dtype="float16")
    assert fingerprint(half.model, half.info) == ours
    other = load("cifar10", dtype="float32")
    preprocess = replace(other.preprocess, crop_pct=0.5)
    assert fingerprint(other.model, replace(other.info, preprocess=preprocess)) != ours
    other.model.head.bias = other.model.head.bias + 1
    assert fingerprint(other.model, other.info) == ours
    other.model.norm.bias = other.model.norm.bias + 0.01
    assert fingerprint(other.model, other.info) != ours


def test_every_setting_is_in_the_fingerprint_or_knowingly_not(classifier: Classifier) -> None:
    """For a new field that changes features: add it where its value isn't the default."""
    assert classifier.config.to_dict().keys() - set(CONFIG_FIELDS) == {"num_classes"}
    assert classifier.preprocess.to_dict().keys() == set(PREPROCESS_FIELDS)


def test_half_precision_that_overflows_is_recomputed(classifier: Classifier, cat: Path) -> None:
    half = load("cifar10", dtype="float16")
    scale = 3e4 / abs(np.array(half.model.norm.weight)).max()
    half.model.norm.weight = half.model.norm.weight * scale
    half.model.stem.weight = half.model.stem.weight * 1e4
    with pytest.warns(RuntimeWarning, match="Features in float16 were not finite"):
        assert np.isfinite(half.embed([cat])).all()


def _parameters(model: MlpMixer) -> dict[str, mx.array]:
    return dict(tree_flatten(model.parameters()))
