"""A fixed order of pixels: what it permutes, and that a model keeps it wherever it goes."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import mixer_mlx
from mixer_mlx import Classifier, ConfigError, MixerConfig, MlpMixer, Preprocess, Recipe
from mixer_mlx.convert.export.formats import export
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.resolution import resize
from mixer_mlx.shuffle import pixel_order
from mixer_mlx.training.prepare import adapted, new_model

SIZES = MixerConfig(
    image_size=(8, 12),
    patch_size=4,
    num_blocks=1,
    hidden_dim=6,
    tokens_mlp_dim=5,
    channels_mlp_dim=7,
    num_classes=3,
)


def test_patches_stay_together_and_all_are_permuted_alike() -> None:
    order = pixel_order("patches", (8, 12), 4).reshape(8, 12)
    where = np.arange(96).reshape(8, 12)
    before, after = (
        [whole[y : y + 4, x : x + 4].ravel() for y in (0, 4) for x in (0, 4, 8)]
        for whole in (where, order)
    )
    come_from = [next(i for i, p in enumerate(before) if set(p) == set(patch)) for patch in after]
    assert sorted(come_from) == list(range(6))
    assert come_from != list(range(6))
    inner = [
        [before[i].tolist().index(pixel) for pixel in patch]
        for i, patch in zip(come_from, after, strict=True)
    ]
    assert all(one == inner[0] for one in inner)
    assert sorted(inner[0]) == list(range(16))
    assert inner[0] != list(range(16))


def test_all_pixels_are_permuted_the_same_way_for_ever() -> None:
    order = pixel_order("pixels", (8, 12), 4)
    assert sorted(order) == list(range(96))
    assert np.random.RandomState(0).permutation(96).tolist() == order.tolist()
    assert order[:4].tolist() == FIRST
    assert pixel_order("pixels", (8, 12), 2).tolist() == order.tolist()


FIRST = [26, 84, 2, 55]
"""Models that were trained with this order depend on it."""


@pytest.mark.parametrize("shuffle", ["patches", "pixels"])
def test_a_model_sees_images_in_that_order(shuffle: str) -> None:
    mx.random.seed(0)
    plain = MlpMixer(SIZES)
    plain.head.weight = mx.random.normal((3, 6))
    model = MlpMixer(SIZES.replace(shuffle=shuffle))
    model.update(plain.parameters())
    images = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    moved = images.reshape(2, 96, 3)[:, pixel_order(shuffle, (8, 12), 4)]  # type: ignore[arg-type]
    expected = plain(mx.array(moved.reshape(images.shape)))
    assert np.array(model(mx.array(images))) == pytest.approx(np.array(expected), abs=1e-6)
    assert abs(np.array(plain(mx.array(images)) - expected)).max() > 0.01


def test_the_order_is_saved_with_the_model(tmp_path: Path) -> None:
    assert "shuffle" not in SIZES.to_dict()
    assert MixerConfig.from_dict(SIZES.to_dict()) == SIZES
    with pytest.raises(ConfigError, match="shuffle"):
        SIZES.replace(shuffle="rows")
    recipe = Recipe(epochs=1, shuffle="pixels")
    model, info = new_model(SIZES, Preprocess((8, 12)), ("a", "b", "c"), recipe)
    mixer_mlx.save(tmp_path / "model", model, info)
    assert mixer_mlx.load(tmp_path / "model").config.shuffle == "pixels"
    kept, _ = adapted(model, info, ("a", "b"), Recipe(epochs=1))
    assert kept.config.shuffle == "pixels"
    other, _ = adapted(model, info, ("a", "b"), Recipe(epochs=1, shuffle="patches"))
    assert other.config.shuffle == "patches"


def test_what_a_shuffled_model_can_not_do(tmp_path: Path) -> None:
    config = SIZES.replace(shuffle="pixels")
    model = MlpMixer(config)
    with pytest.raises(ConfigError, match="shuffled order"):
        resize(model, (16, 24))
    info = ModelInfo(config, Preprocess((8, 12)), ("a", "b", "c"))
    for format, name in (("timm", "timm"), ("jax", "model.npz")):
        with pytest.raises(ConfigError, match="shuffled order"):
            export(model, info, tmp_path / name, format=format)  # type: ignore[arg-type]
        assert not (tmp_path / name).exists()
    assert Classifier(model, info).forward(np.zeros((1, 8, 12, 3), np.uint8)).shape == (1, 3)
