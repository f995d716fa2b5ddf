"""The published weights themselves. Marked `network`; never run where this was written."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image

from mixer_mlx import load
from mixer_mlx.catalog import CATALOG

pytestmark = pytest.mark.network

PANDA = 388


@pytest.mark.parametrize(
    ("name", "file", "probability"),
    [
        ("mixer_b16_224.imagenet1k", "b16_imagenet1k", 0.9998),
        ("mixer_l16_224.imagenet1k", "l16_imagenet1k", 0.9994),
        ("mixer_b16_224.sam", "b16_sam", 0.9998),
        ("mixer_b32_224.sam", "b32_sam", 0.9999),
    ],
)
def test_softmax_of_the_official_weights(
    golden: Path, name: str, file: str, probability: float
) -> None:
    """Outputs that sebastian-sz/mlp-mixer-keras (Apache-2.0) recorded with TensorFlow."""
    with Image.open(golden / "official" / "panda.jpg") as image:
        pixels = np.asarray(image.convert("RGB"), np.float32)
    images = mx.array(tensorflow_bilinear(pixels, 224)[None] / 128 - 1)
    found = np.array(mx.softmax(load(name, dtype="float32").model(images), axis=-1))[0]
    theirs = np.load(golden / "official" / f"{file}.npy").ravel()
    assert theirs.argmax() == PANDA
    assert theirs[PANDA] == pytest.approx(probability, abs=1e-4)
    # JPEG decoders differ by a digit here and there, so not to the last one.
    assert abs(found - theirs).max() < 1e-3


def tensorflow_bilinear(pixels: np.ndarray, size: int) -> np.ndarray:
    """`tf.image.resize`: bilinear, pixel centres at half numbers, no averaging when it shrinks."""
    for axis in (0, 1):
        length = pixels.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(at).astype(int)
        weight = (at - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        before = pixels.take(low, axis)
        pixels = before + (pixels.take(np.minimum(low + 1, length - 1), axis) - before) * weight
    return pixels


def test_timms_b16_is_googles() -> None:
    """The mislabelled tag: timm's "in21k_ft_in1k" holds the weights of imagenet1k."""
    timm, google = (
        dict(tree_flatten(load(name, dtype="float32").model.parameters()))
        for name in ("mixer_b16_224.goog_in21k_ft_in1k", "mixer_b16_224.imagenet1k")
    )
    assert timm.keys() == google.keys()
    for name, value in google.items():
        assert mx.array_equal(timm[name], value), name


@pytest.mark.parametrize("name", [name for name in CATALOG if name != "cifar10"])
def test_every_published_model_loads(name: str, cat: Path) -> None:
    found = load(name)(cat)
    assert found[0].probability > 0
    if CATALOG[name].config.num_classes == 1000:
        assert any("cat" in prediction.label for prediction in found)
