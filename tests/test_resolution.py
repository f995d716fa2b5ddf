from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mixer_mlx import ConfigError, MixerConfig, MlpMixer
from mixer_mlx.convert import Settings, import_model
from mixer_mlx.resolution import resize


@pytest.fixture(scope="module")
def trained(golden: Path) -> MlpMixer:
    """Patches 3 x 4: a swapped height and width would show."""
    return import_model(golden / "jax_tiny.npz", settings=Settings(image_size=(24, 32))).model


@pytest.mark.parametrize("ratio", [(2, 2), (1, 3), (3, 2), (1, 1)])
def test_a_tiled_image_keeps_every_parts_tokens_and_the_logits(
    trained: MlpMixer, golden: Path, ratio: tuple[int, int]
) -> None:
    """The reference code's own outputs at the trained size, found again in every part."""
    expected = np.load(golden / "jax_tiny_expected.npz")
    kh, kw = ratio
    large = resize(trained, (24 * kh, 32 * kw))
    seen = large.intermediates(mx.array(np.tile(expected["images"], (1, kh, kw, 1))))
    for i, block in enumerate(seen.blocks):
        rows = np.array(block).reshape(2, kh, 3, kw, 4, 32)
        for y in range(kh):
            for x in range(kw):
                part = rows[:, y, :, x].reshape(2, 12, 32)
                assert abs(part - expected[f"block_{i}"]).max() < 1e-5, (i, y, x)
    assert abs(np.array(seen.logits) - expected["logits"]).max() < 1e-5


def test_parts_do_not_mix(trained: MlpMixer) -> None:
    """Another image in one part changes that part's tokens alone."""
    large = resize(trained, (48, 64))
    images = mx.random.normal((1, 48, 64, 3))
    changed = mx.array(images)
    changed[:, :24, 32:] = 0.5
    one, other = (
        np.array(large.intermediates(x).blocks[-1]).reshape(6, 8, 32) for x in (images, changed)
    )
    same = abs(one - other).max(axis=-1) == 0
    expected = np.ones((6, 8), bool)
    expected[:3, 4:] = False
    assert np.array_equal(same, expected)


def test_sizes_grow_as_in_the_paper() -> None:
    config = MixerConfig.variant("S/32", num_classes=0)
    large = resize(MlpMixer(config), (448, 448)).config
    assert large.num_tokens == 4 * config.num_tokens == 196
    assert large.tokens_mlp_dim == 4 * config.tokens_mlp_dim == 1024
    assert large.channels_mlp_dim == config.channels_mlp_dim


def test_half_precision_stays(trained: MlpMixer) -> None:
    half = MlpMixer(trained.config)
    half.update(trained.parameters())
    half.set_dtype(mx.float16)
    assert resize(half, (48, 64)).blocks[0].token_mixing.fc1.weight.dtype == mx.float16


@pytest.mark.parametrize("size", [(36, 48), (12, 16), (48, 33), (0, 0), (-24, 32)])
def test_other_ratios_are_refused_with_the_possible_sizes(
    trained: MlpMixer, size: tuple[int, int]
) -> None:
    with pytest.raises(ConfigError, match=r"48x64, 72x96, 96x128"):
        resize(trained, size)
