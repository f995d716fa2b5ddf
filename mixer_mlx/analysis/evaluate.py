"""How often a model is right."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mixer_mlx.data.loader import Batch
from mixer_mlx.errors import ConfigError
from mixer_mlx.runtime.ranks import ALONE, Ranks

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


@dataclass(frozen=True)
class Outcome:
    """What a model made of one image.

    `target` and `predicted` are outputs of the model: the right one and the most probable one;
    `probability` (0 to 1) is that of `predicted`, `loss` the cross-entropy in nats.
    """

    target: int
    predicted: int
    probability: float
    loss: float

    @property
    def right(self) -> bool:
        """Whether the most probable output is the right one."""
        return self.target == self.predicted


def evaluate(
    logits: Logits,
    batches: Iterable[Batch],
    classes: NDArray[np.int32] | None = None,
    outcomes: list[Outcome] | None = None,
    ranks: Ranks = ALONE,
) -> Metrics:
    """Hold a model against labelled images.

    `classes` maps a batch's labels to the model's outputs (None: they are the same). Up to five
    outputs make top-5 1. `outcomes`, if given, gets one for each image, in order. With several
    `ranks`, each with images of its own, all return the metrics of all images. Raises
    ConfigError when there is no image.
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
        losses = mx.logsumexp(rows, axis=1) - right[:, 0]
        nats = losses.sum()
        first, five = (rank < 1).sum(), (rank < 5).sum()
        mx.eval(nats, first, five)
        if outcomes is not None:
            outcomes += _outcomes(rows, target, losses)
        top1 += int(first)
        top5 += int(five)
        loss += float(nats)
        images += len(labels)
    found = ranks.all_gather([top1, top5, loss, images])
    in_one, in_five, total_loss, count = map(sum, zip(*found, strict=True))
    if not count:
        raise ConfigError("There is no image to evaluate on; check the folder.")
    seconds = time.perf_counter() - start
    return Metrics(in_one / count, in_five / count, total_loss / count, int(count), count / seconds)


def _outcomes(rows: mx.array, target: mx.array, losses: mx.array) -> list[Outcome]:
    """Logits (N, classes), right outputs (N, 1) and losses (N,), row by row."""
    best, share = mx.argmax(rows, axis=1), mx.softmax(rows, axis=1).max(axis=1)
    columns = (np.array(array).tolist() for array in (target[:, 0], best, share, losses))
    return [Outcome(*values) for values in zip(*columns, strict=True)]
