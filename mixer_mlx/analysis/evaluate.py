"""How often a model is right."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mixer_mlx.data.loader import Batch
from mixer_mlx.errors import ConfigError

Logits = Callable[[NDArray[np.uint8]], mx.array]
"""Pixels (N, H, W, channels) -> logits (N, classes), as `Classifier.logits`."""


@dataclass(frozen=True)
class Metrics:
    """`top1` and `top5` are shares, 0 to 1; `loss` is the mean softmax cross-entropy in nats."""

    top1: float
    top5: float
    loss: float
    images: int
    images_per_second: float


def evaluate(
    logits: Logits, batches: Iterable[Batch], classes: NDArray[np.int32] | None = None
) -> Metrics:
    """Hold a model against labelled pictures.

    `classes` maps a batch's labels to the model's outputs (None: they are the same). Up to five
    outputs make top-5 1. Raises ConfigError when there is no picture.
    """
    start = time.perf_counter()
    top1 = top5 = images = 0
    loss = 0.0
    for pixels, labels in batches:
        target = mx.array(labels if classes is None else classes[labels])[:, None]
        rows = logits(pixels).astype(mx.float32)
        right = mx.take_along_axis(rows, target, axis=1)
        # Ties count against the model: equal logits for all classes are no achievement.
        rank = (rows > right).sum(axis=1) + (rows == right).sum(axis=1) - 1
        nats = (mx.logsumexp(rows, axis=1) - right[:, 0]).sum()
        first, five = (rank < 1).sum(), (rank < 5).sum()
        mx.eval(nats, first, five)
        top1 += int(first)
        top5 += int(five)
        loss += float(nats)
        images += len(labels)
    if not images:
        raise ConfigError("There is no picture to evaluate on; check the folder.")
    seconds = time.perf_counter() - start
    return Metrics(top1 / images, top5 / images, loss / images, images, images / seconds)
