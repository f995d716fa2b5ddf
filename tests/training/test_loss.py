import mlx.core as mx
import numpy as np
import pytest

from mixer_mlx.data.mixing import SoftLabels, weighted
from mixer_mlx.training.loss import correct, example_losses, sigmoid_loss, softmax_loss, targets

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (6, 5))
LABELS = np.array([0, 4, 2, 2, 1, 3])


def one_hot(smoothing: float) -> np.ndarray:
    return np.eye(5)[LABELS] * (1 - smoothing) + smoothing / 5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_softmax(smoothing: float, dtype: mx.Dtype) -> None:
    logits = mx.array(LOGITS).astype(dtype)
    exact = np.array(logits.astype(mx.float32)).astype(np.float64)
    log_p = exact - np.log(np.exp(exact).sum(1, keepdims=True))
    found = softmax_loss(logits, mx.array(LABELS), smoothing)
    assert found.dtype == mx.float32
    assert np.array(found) == pytest.approx(-(one_hot(smoothing) * log_p).sum(1), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_sigmoid(smoothing: float, dtype: mx.Dtype) -> None:
    logits = mx.array(LOGITS).astype(dtype)
    t, p = one_hot(smoothing), 1 / (1 + np.exp(-np.array(logits.astype(mx.float32), np.float64)))
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(1)
    found = sigmoid_loss(logits, mx.array(LABELS), smoothing)
    assert found.dtype == mx.float32
    assert np.array(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [softmax_loss, sigmoid_loss])
def test_large_logits_stay_finite(loss: object) -> None:
    logits = mx.array([[500.0, -500.0], [-500.0, 500.0]])
    found = np.array(loss(logits, mx.array([0, 0]), 0.0))  # type: ignore[operator]
    assert found[0] == 0
    assert found[1] == pytest.approx(1000)


def test_correct() -> None:
    best, worst = LOGITS.argmax(1), LOGITS.argmin(1)
    for labels, expected in (
        (best, 6),
        (worst, 0),
        (SoftLabels(np.stack([best, worst]), np.ones((2, 6), np.float32)), 6),
        (SoftLabels(np.stack([worst, best]), np.ones((2, 6), np.float32)), 0),
    ):
        assert correct(mx.array(LOGITS), targets(labels, 0, 6)).item() == expected


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_and_weighted_targets(kind: str, smoothing: float) -> None:
    """The loss of the mixed target itself, each class times its weight; smoothing as in timm."""
    share, others = np.array([0.7, 0.6, 1.0, 0.5, 0.9, 0.8]), np.roll(LABELS, 1)
    both = SoftLabels(np.stack([LABELS, others]), np.stack([share, 1 - share]).astype(np.float32))
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    if kind == "sigmoid":
        log_p, log_not = -np.log1p(np.exp(-LOGITS)), -np.log1p(np.exp(LOGITS))

    def loss(target: np.ndarray) -> np.ndarray:
        if kind == "softmax":
            return -(target * log_p).sum(1)
        return -(target * log_p + (1 - target) * log_not).sum(1)

    one, other = one_hot(smoothing), np.roll(one_hot(smoothing), 1, axis=0)
    mixed = loss(share[:, None] * one + (1 - share)[:, None] * other)
    found = example_losses(kind, mx.array(LOGITS), targets(both, 0, 6), smoothing)
    assert np.array(found) == pytest.approx(mixed, rel=1e-5)
    weights = np.array([2.0, 0.5, 1.0, 3.0, 0.1], np.float32)
    found = example_losses(
        kind, mx.array(LOGITS), targets(weighted(both, weights), 0, 6), smoothing
    )
    expected = share * weights[LABELS] * loss(one) + (1 - share) * weights[others] * loss(other)
    assert np.array(found) == pytest.approx(expected, rel=1e-5)
    part = example_losses(kind, mx.array(LOGITS[2:5]), targets(both, 2, 5), smoothing)
    assert np.array(part) == pytest.approx(mixed[2:5], rel=1e-5)


def test_class_weights_are_torchs() -> None:
    """torch.nn.CrossEntropyLoss(weight, reduction="none"): each loss times its label's weight."""
    weights = np.array([2.0, 0.5, 1.0, 3.0, 0.1], np.float32)
    found = example_losses(
        "softmax", mx.array(LOGITS), targets(weighted(LABELS, weights), 0, 6), 0.0
    )
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    assert np.array(found) == pytest.approx(-weights[LABELS] * log_p[range(6), LABELS], rel=1e-5)
