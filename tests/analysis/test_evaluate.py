import math

import mlx.core as mx
import numpy as np
import pytest

from mixer_mlx import ConfigError
from mixer_mlx.analysis.evaluate import evaluate


def test_numbers_against_numpy() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (50, 12)).astype(np.float32)
    labels = rng.integers(0, 12, 50).astype(np.int32)
    pairs = [(logits[i : i + 8], labels[i : i + 8]) for i in range(0, 50, 8)]
    found = evaluate(lambda pixels: mx.array(pixels), pairs)
    order = np.argsort(-logits, axis=1)
    wide = logits.astype(np.float64)
    nats = np.log(np.exp(wide).sum(1)) - wide[np.arange(50), labels]
    assert found.images == 50
    assert found.top1 == pytest.approx((order[:, 0] == labels).mean())
    assert found.top5 == pytest.approx((order[:, :5] == labels[:, None]).any(1).mean())
    assert found.loss == pytest.approx(nats.mean(), rel=1e-6)
    assert found.images_per_second > 0


def test_labels_are_mapped_to_outputs() -> None:
    logits = np.eye(3, dtype=np.float32)
    found = evaluate(
        lambda pixels: mx.array(pixels),
        [(logits, np.array([1, 0, 2]))],
        np.array([1, 0, 2], np.int32),
    )
    assert found.top1 == 1
    assert found.loss == pytest.approx(math.log(math.e + 2) - 1, rel=1e-6)


def test_equal_logits_are_no_achievement() -> None:
    found = evaluate(lambda pixels: mx.zeros((4, 10)), [(np.zeros(4), np.arange(4))])
    assert (found.top1, found.top5) == (0, 0)


def test_nothing_to_evaluate() -> None:
    with pytest.raises(ConfigError, match="no readable images"):
        evaluate(lambda pixels: mx.array(pixels), [])
