"""Units as images: their order on made units, and what the sheets show."""

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from mixer_mlx import ConfigError, MixerConfig, MlpMixer
from mixer_mlx.analysis.filters import (
    coloured,
    filters_of,
    frequencies,
    paired_order,
    sheet,
    stem_filters,
    token_filters,
)

# Whole cycles along a side of 12 patches; the frequency is their length / 12 cycles per patch.
CYCLES = [(0, 1), (1, 1), (2, 0), (1, 2), (3, 0), (2, 3), (4, 1), (5, 0), (3, 5), (6, 4)]


def waves(side: int = 12) -> NDArray[np.float32]:
    """Pairs of a sine and a slightly weaker opposite of it, by rising frequency."""
    y, x = np.mgrid[:side, :side]
    images = []
    for down, across in CYCLES:
        wave = np.sin(2 * np.pi * (down * y + across * x) / side + 0.4)
        images += [wave, -0.9 * wave]
    return np.array(images, np.float32)


def made_model(height: int = 48, width: int = 48, channels: int = 3) -> MlpMixer:
    return MlpMixer(
        MixerConfig(
            image_size=(height, width),
            patch_size=4,
            in_channels=channels,
            num_blocks=2,
            hidden_dim=8,
            tokens_mlp_dim=2 * len(CYCLES),
            channels_mlp_dim=8,
            num_classes=2,
        )
    )


def test_frequencies_of_sines_are_known() -> None:
    expected = np.repeat([np.hypot(*cycles) / 12 for cycles in CYCLES], 2)
    assert frequencies(waves()) == pytest.approx(expected, abs=1e-6)
    flat = np.full((1, 12, 12), 3, np.float32)
    assert frequencies(flat) == pytest.approx([0], abs=1e-9)


def test_shuffled_sines_come_back_in_order_with_their_opposites() -> None:
    images = waves()
    shuffled = np.random.default_rng(3).permutation(len(images))
    order = paired_order(images[shuffled])
    assert sorted(order) == list(range(len(images)))
    pairs = shuffled[order].reshape(-1, 2) // 2
    assert pairs.tolist() == [[i, i] for i in range(len(CYCLES))]


def test_the_nearest_to_the_negative_is_not_the_most_similar_direction() -> None:
    """The paper's distance, not a cosine: a tiny exact opposite loses to one of the same size."""
    wave, other = waves()[0], waves()[8]
    images = np.stack([wave, -0.1 * wave + 0.01 * other, -wave + 0.3 * other])
    assert (np.diff(frequencies(images)) > 0).all()
    assert paired_order(images).tolist() == [0, 2, 1]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_unit_is_shown_once(count: int) -> None:
    images = np.random.default_rng(0).normal(size=(count, 3, 5)).astype(np.float32)
    assert sorted(paired_order(images)) == list(range(count))


def test_rows_read_and_columns_write() -> None:
    """On images that aren't square, so that swapped sides would show."""
    model = made_model(height=32, width=48)  # 8 x 12 patches
    mlp = model.blocks[1].token_mixing
    reads = np.random.default_rng(0).normal(size=(20, 8, 12)).astype(np.float32)
    mlp.fc1.weight = mx.array(reads.reshape(20, -1))
    writes = np.random.default_rng(1).normal(size=(20, 8, 12)).astype(np.float32)
    mlp.fc2.weight = mx.array(writes.reshape(20, -1).T)
    first, second = token_filters(model, 1)
    order = paired_order(reads)
    assert first.units.tolist() == second.units.tolist() == order.tolist()
    assert (first.images == reads[order]).all()
    assert (second.images == writes[order]).all()
    assert (first.layer, second.layer) == (
        "blocks.1.token_mixing.fc1",
        "blocks.1.token_mixing.fc2",
    )
    model.stem.weight = mx.array(np.arange(8 * 4 * 4 * 3, dtype=np.float32).reshape(8, 4, 4, 3))
    stem = stem_filters(model)
    assert (
        stem.images[0, 1, 2].tolist() == np.array(model.stem.weight)[stem.units[0], 1, 2].tolist()
    )


def test_one_scale_for_a_sheet() -> None:
    """A weight has the same colour in each unit: white 0, orange above, blue below."""
    assert coloured(np.array([0.0, 1.0, -1.0], np.float32)).tolist() == [
        [247, 247, 245],
        [178, 64, 16],
        [26, 77, 143],
    ]
    model = made_model()
    weights = np.zeros((20, 144), np.float32)
    weights[:10], weights[10:] = 0.5, 1.0
    model.blocks[0].token_mixing.fc1.weight = mx.array(weights)
    filters, _ = token_filters(model, 0)
    page = np.asarray(sheet(filters))
    colours = {tuple(colour) for colour in page[74 : 74 + 48].reshape(-1, 3).tolist()}
    assert (178, 64, 16) in colours
    assert tuple(coloured(np.array([0.5], np.float32))[0].tolist()) in colours


def test_which_are_drawn() -> None:
    model = made_model()
    names = [filters.layer for filters in filters_of(model, "all")]
    assert names == ["stem"] + [
        f"blocks.{i}.token_mixing.{name}" for i in (0, 1) for name in ("fc1", "fc2")
    ]
    assert len(filters_of(made_model(channels=4), [1])) == 2
    assert sheet(stem_filters(made_model(channels=1))).mode == "RGB"
    with pytest.raises(ConfigError, match="no block 2; expected 0 to 1"):
        filters_of(model, [2])
    with pytest.raises(ConfigError, match="4 channels"):
        stem_filters(made_model(channels=4))
