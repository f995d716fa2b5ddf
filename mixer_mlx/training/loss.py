"""The loss of each example, in float32."""

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from numpy.typing import NDArray

from mixer_mlx.data.mixing import Labels, SoftLabels
from mixer_mlx.errors import ConfigError

Targets = list[mx.array]
"""[labels (N,)], [targets (N, K)], or [labels (T, N), weights (T, N)] as in `SoftLabels`."""

LossFunction = Callable[[mx.array, mx.array], mx.array]
"""Float32 logits (N, K), and the batch's labels or targets (N, ...) -> the loss of each, (N,)."""


def softmax_loss(logits: mx.array, labels: mx.array, smoothing: float) -> mx.array:
    """Cross-entropy in nats: logits (N, K), labels (N,) or distributions (N, K) -> (N,).

    The target is 1 - smoothing for the label plus smoothing / K for every class, as in PyTorch
    (Szegedy et al., arXiv 1512.00567).
    """
    logits = logits.astype(mx.float32)
    log_sum = mx.logsumexp(logits, axis=-1)
    if labels.ndim == 2:
        wanted = (1 - smoothing) * labels + smoothing / logits.shape[-1]
        return (wanted * (log_sum[:, None] - logits)).sum(axis=-1)
    right = _right(logits, labels)
    return log_sum - (1 - smoothing) * right - smoothing * logits.mean(axis=-1)


def sigmoid_loss(logits: mx.array, labels: mx.array, smoothing: float) -> mx.array:
    """Binary cross-entropy per class, summed over classes: (N, K), (N,) -> (N,).

    As big_vision's `sigmoid_xent`; smoothing changes the targets as in `softmax_loss`. Images of
    several classes have targets (N, K), 1 for each class that is there.
    """
    logits = logits.astype(mx.float32)
    # -log sigmoid(x) t - log sigmoid(-x) (1 - t) = log(1 + exp x) - t x
    softplus = mx.logaddexp(logits, 0.0).sum(axis=-1)
    if labels.ndim == 2:
        wanted = (1 - smoothing) * labels + smoothing / logits.shape[-1]
        return softplus - (wanted * logits).sum(axis=-1)
    right = _right(logits, labels)
    return softplus - (1 - smoothing) * right - smoothing * logits.mean(axis=-1)


def _right(logits: mx.array, labels: mx.array) -> mx.array:
    """The logit of each example's label; NaN for a label that isn't a class."""
    # MLX doesn't check indices, and would read memory of others.
    inside = mx.clip(labels, 0, logits.shape[-1] - 1)
    right = mx.take_along_axis(logits, inside[:, None], axis=-1)[:, 0]
    return mx.where(inside == labels, right, mx.nan)


def squared_error(predicted: mx.array, wanted: mx.array) -> mx.array:
    """For regression: the squared error, summed over outputs: (N, K), (N, K) or (N,) -> (N,)."""
    return (predicted - wanted.reshape(predicted.shape)).square().sum(axis=-1)


LOSSES = {"softmax": softmax_loss, "sigmoid": sigmoid_loss}


def targets(labels: Labels | NDArray[Any], start: int, end: int) -> Targets:
    """The targets of examples start..end of a batch, on the device."""
    if isinstance(labels, SoftLabels):
        return [mx.array(array[:, start:end]) for array in labels]
    return [mx.array(labels[start:end])]


def example_losses(
    kind: str | LossFunction, logits: mx.array, targets: Targets, smoothing: float
) -> mx.array:
    """The loss of each example, (N,); that of mixed labels is the mixture of their losses.

    `kind` is one of LOSSES or a function, which knows no smoothing. Raises ConfigError for a
    function whose result isn't (N,).
    """
    function = kind if callable(kind) else lambda x, y: LOSSES[kind](x, y, smoothing)
    logits = logits.astype(mx.float32)
    labels, *weights = targets
    parts = [function(logits, part) for part in (labels if weights else [labels])]
    if any(part.shape != logits.shape[:1] for part in parts):
        raise ConfigError(
            f"Expected a loss of shape {list(logits.shape[:1])}, one number per image, not "
            f"{list(parts[0].shape)}; sum over the other axes."
        )
    return (weights[0] * mx.stack(parts)).sum(axis=0) if weights else parts[0]


def correct(logits: mx.array, targets: Targets) -> mx.array:
    """How many examples are classified correctly, by the heaviest label if mixed; float32.

    NaN for targets that aren't labels.
    """
    labels = targets[0] if len(targets) == 1 else targets[0][0]
    if labels.ndim > 1 or not mx.issubdtype(labels.dtype, mx.integer):
        return mx.array(math.nan)
    return (mx.argmax(logits, axis=-1) == labels).astype(mx.float32).sum()
