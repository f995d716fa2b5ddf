import mlx.core as mx
import numpy as np
import pytest

from mixer_mlx.training.objective import correct, sigmoid_loss, softmax_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (6, 5))
LABELS = np.array([0, 4, 2, 2, 1, 3])


def targets(smoothing: float) -> np.ndarray:
    return np.eye(5)[LABELS] * (1 - smoothing) + smoothing / 5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_softmax(smoothing: float, dtype: mx.Dtype) -> None:
    logits = mx.array(LOGITS).astype(dtype)
    exact = np.array(logits.astype(mx.float32)).astype(np.float64)
    log_p = exact - np.log(np.exp(exact).sum(1, keepdims=True))
    found = softmax_loss(logits, mx.array(LABELS), smoothing)
    assert found.dtype == mx.float32
    assert np.array(found) == pytest.approx(-(targets(smoothing) * log_p).sum(1), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sigmoid(smoothing: float) -> None:
    t, p = targets(smoothing), 1 / (1 + np.exp(-LOGITS))
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(1)
    found = sigmoid_loss(mx.array(LOGITS), mx.array(LABELS), smoothing)
    assert np.array(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [softmax_loss, sigmoid_loss])
def test_large_logits_stay_finite(loss: object) -> None:
    logits = mx.array([[500.0, -500.0], [-500.0, 500.0]])
    found = np.array(loss(logits, mx.array([0, 0]), 0.0))  # type: ignore[operator]
    assert found[0] == 0
    assert found[1] == pytest.approx(1000)


def test_correct() -> None:
    assert correct(mx.array(LOGITS), mx.array(LOGITS.argmax(1))).item() == 6
    assert correct(mx.array(LOGITS), mx.array(LOGITS.argmin(1))).item() == 0
