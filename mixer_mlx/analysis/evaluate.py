"""Accuracy and loss of a model on labelled images."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mixer_mlx.classify import Classifier
from mixer_mlx.data.batches import check_indices, check_labels
from mixer_mlx.data.loader import Batch, DecodedImages, EvaluationBatches
from mixer_mlx.errors import ConfigError
from mixer_mlx.runtime.ranks import ALONE, Ranks

Logits = Callable[[NDArray[np.uint8]], mx.array]
"""Pixels (N, H, W, channels) -> logits (N, classes), as `Classifier.forward`."""


@dataclass(frozen=True)
class Metrics:
    """`top1` and `top5` are fractions; `loss` is the mean softmax cross-entropy in nats.

    `scores` are metrics of one's own, see `training.loop.fit`; `losses` are those of the images, in
    an order that depends on the images alone.
    """

    top1: float
    top5: float
    loss: float
    images: int
    images_per_second: float
    scores: Mapping[str, float] = field(default_factory=dict)
    losses: tuple[float, ...] = field(default=(), repr=False, compare=False)

    def to_dict(self) -> dict[str, float]:
        """All of them by name, except for the images' losses."""
        values = {name: value for name, value in vars(self).items() if name != "losses"}
        return values | values.pop("scores")


@dataclass(frozen=True)
class Outcome:
    """A model's prediction for one labelled image.

    `target` and `predicted` are indices of outputs: the correct and the most probable one, with
    `probability` (0 to 1). `loss` is the cross-entropy in nats.
    """

    target: int
    predicted: int
    probability: float
    loss: float

    @property
    def right(self) -> bool:
        """Whether the most probable output is the correct one."""
        return self.target == self.predicted


def evaluate(
    logits: Logits,
    batches: Iterable[Batch],
    classes: NDArray[np.int32] | None = None,
    outcomes: list[Outcome] | None = None,
    ranks: Ranks = ALONE,
    only: NDArray[np.int32] | None = None,
) -> Metrics:
    """Evaluate a model on labelled images.

    `only` are the outputs that are compared (None: all), as ImageNet-A and -R compare 200 of 1,000.
    `classes` maps a batch's labels to the model's outputs (None: they are the same). With five or
    fewer outputs, top-5 is 1. `outcomes`, if given, is extended by one per image, in order. With
    several `ranks`, each with its own images, all return the metrics of all images. Raises
    ConfigError without images, and for a label that isn't a class.
    """
    start = time.perf_counter()
    top1 = top5 = images = 0
    loss = 0.0
    each: list[float] = []
    for pixels, labels in batches:
        rows = logits(pixels).astype(mx.float32)
        if only is not None:
            rows = mx.where(_among(only, rows.shape[1]), rows, -mx.inf)
        target = mx.array(_targets(labels, classes, *rows.shape))[:, None]
        right = mx.take_along_axis(rows, target, axis=1)
        # Ties count against the model, so equal logits for all classes score nothing.
        rank = (rows > right).sum(axis=1) + (rows == right).sum(axis=1) - 1
        losses = mx.logsumexp(rows, axis=1) - right[:, 0]
        nats = losses.sum()
        first, five = (rank < 1).sum(), (rank < 5).sum()
        mx.eval(losses, nats, first, five)
        if outcomes is not None:
            outcomes += _outcomes(rows, target, losses)
        top1 += int(first)
        top5 += int(five)
        loss += float(nats)
        each += np.array(losses).tolist()
        images += len(labels)
    found = ranks.all_gather([top1, top5, loss, images, each])
    *sums, parts = zip(*found, strict=True)
    in_one, in_five, total_loss, count = map(sum, sums)
    if not count:
        raise ConfigError(
            "There are no readable images to evaluate on; check them with `analysis.check`."
        )
    seconds = time.perf_counter() - start
    return Metrics(
        in_one / count,
        in_five / count,
        total_loss / count,
        int(count),
        count / seconds,
        losses=tuple(chain.from_iterable(parts)),
    )


def _among(only: NDArray[np.int32], size: int) -> mx.array:
    mask = np.zeros(size, bool)
    mask[only] = True
    return mx.array(mask)


def _targets(
    labels: NDArray[np.int32], classes: NDArray[np.int32] | None, size: int, outputs: int
) -> NDArray[np.int32]:
    """The output of each label; raises ConfigError for those that there aren't."""
    if classes is None:
        check_labels(labels, size, outputs)
        return labels
    check_labels(labels, size, len(classes))
    targets = classes[labels]
    check_indices("output", targets, outputs)
    return targets


def evaluate_images(
    classifier: Classifier,
    images: DecodedImages,
    batch_size: int,
    classes: NDArray[np.int32] | None = None,
    outcomes: list[Outcome] | None = None,
    ranks: Ranks = ALONE,
    only: NDArray[np.int32] | None = None,
) -> Metrics:
    """`evaluate` for a Classifier and a dataset's images, or with several `ranks` its own shard."""
    batches = EvaluationBatches(images, classifier.preprocess, batch_size)
    return evaluate(classifier.forward, batches, classes, outcomes, ranks, only)


def _outcomes(rows: mx.array, target: mx.array, losses: mx.array) -> list[Outcome]:
    """Outcomes from logits (N, classes), correct outputs (N, 1) and losses (N,)."""
    best, probability = mx.argmax(rows, axis=1), mx.softmax(rows, axis=1).max(axis=1)
    columns = (np.array(array).tolist() for array in (target[:, 0], best, probability, losses))
    return [Outcome(*values) for values in zip(*columns, strict=True)]
