"""The loss of each example, in float32."""

import mlx.core as mx

from mixer_mlx.data.mixing import Labels, SoftLabels

Targets = list[mx.array]
"""[labels (N,)], or [labels (T, N), weights (T, N)] as in `SoftLabels`."""


def softmax_loss(logits: mx.array, labels: mx.array, smoothing: float) -> mx.array:
    """Cross-entropy in nats: logits (N, K), labels (N,) -> (N,).

    The target is 1 - smoothing for the label plus smoothing / K for every class, as in PyTorch
    (Szegedy et al., arXiv 1512.00567).
    """
    logits = logits.astype(mx.float32)
    log_sum = mx.logsumexp(logits, axis=-1)
    right = mx.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    return log_sum - (1 - smoothing) * right - smoothing * logits.mean(axis=-1)


def sigmoid_loss(logits: mx.array, labels: mx.array, smoothing: float) -> mx.array:
    """Binary cross-entropy per class, summed over classes: (N, K), (N,) -> (N,).

    As big_vision's `sigmoid_xent`; smoothing changes the targets as in `softmax_loss`.
    """
    logits = logits.astype(mx.float32)
    right = mx.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    # -log sigmoid(x) t - log sigmoid(-x) (1 - t) = log(1 + exp x) - t x
    softplus = mx.logaddexp(logits, 0.0).sum(axis=-1)
    return softplus - (1 - smoothing) * right - smoothing * logits.mean(axis=-1)


LOSSES = {"softmax": softmax_loss, "sigmoid": sigmoid_loss}


def targets(labels: Labels, start: int, end: int) -> Targets:
    """The targets of examples start..end of a batch, on the device."""
    if isinstance(labels, SoftLabels):
        return [mx.array(array[:, start:end]) for array in labels]
    return [mx.array(labels[start:end])]


def example_losses(kind: str, logits: mx.array, targets: Targets, smoothing: float) -> mx.array:
    """The loss of each example, (N,): both losses are linear in the target, so mixtures add up."""
    labels, *weights = targets
    if not weights:
        return LOSSES[kind](logits, labels, smoothing)
    parts = [LOSSES[kind](logits, part, smoothing) for part in labels]
    return (weights[0] * mx.stack(parts)).sum(axis=0)


def correct(logits: mx.array, targets: Targets) -> mx.array:
    """How many examples are classified correctly, by the heaviest label if mixed; float32."""
    labels = targets[0] if len(targets) == 1 else targets[0][0]
    return (mx.argmax(logits, axis=-1) == labels).astype(mx.float32).sum()
