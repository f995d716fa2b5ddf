"""Probabilities that mean something: a temperature fitted on validation images, and its error.

Temperature scaling and the expected calibration error (ECE): Guo et al., 2017, arXiv 1706.04599.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .checks import check_keys, check_number, check_whole
from .errors import ConfigError

BOUNDS = (0.25, 4.0)
"""Lowest and highest temperature: few images, or all of them right, would ask for any."""
PRIOR = 0.35
"""Standard deviation of log temperature, around 0, before any image is seen, so that a few can't
move it far; docs/training.md has what was tried."""
BINS = 15
PRECISION = 0.95
"""Accuracy of the images that `Calibration.reject_below` leaves."""


@dataclass(frozen=True)
class Calibration:
    """What a model's logits are divided by, and what that changes on `images` validation images.

    `ece_before` and `ece_after` are expected calibration errors, 0 to 1. Of the images whose
    highest probability is at least `reject_below`, 95 % are right; None if no threshold has that.
    """

    temperature: float
    ece_before: float
    ece_after: float
    images: int
    reject_below: float | None = None

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, 1e-3, 1e3)
        check_number("ece_before", self.ece_before, 0, 1)
        check_number("ece_after", self.ece_after, 0, 1)
        check_whole("images", self.images, 1, 10**12)
        if self.reject_below is not None:
            check_number("reject_below", self.reject_below, 0, 1)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> "Calibration":
        """The inverse of `to_dict`. Raises ConfigError."""
        if not isinstance(values, Mapping):
            raise ConfigError("calibration isn't an object.")
        check_keys("calibration", values, cls, all_=False)
        known: dict[str, Any] = dict(values)
        if missing := {"temperature", "ece_before", "ece_after", "images"} - known.keys():
            raise ConfigError(f"The calibration lacks {min(missing)}.")
        return cls(**known)


class Bin(NamedTuple):
    """Images of similar confidence: their number, mean confidence and accuracy, 0 to 1."""

    images: int
    confidence: float
    accuracy: float


Logits = NDArray[np.floating]
"""(N, classes)."""
Labels = NDArray[np.integer]
"""The right classes, (N,)."""


def calibrate(logits: Logits, labels: Labels) -> Calibration:
    """The temperature for a model's logits of N images that it wasn't trained on.

    Raises ConfigError without images.
    """
    if not len(labels):
        raise ConfigError("There are no readable images to calibrate on; add validation images.")
    temperature = fit_temperature(logits, labels, PRIOR)
    before, after = (confidences(logits / t) for t in (1.0, temperature))
    right = logits.argmax(axis=1) == labels
    return Calibration(
        temperature, ece(before, right), ece(after, right), len(labels), threshold(after, right)
    )


def fit_temperature(logits: Logits, labels: Labels, prior: float = math.inf) -> float:
    """The most probable temperature within BOUNDS, if its logarithm is N(0, `prior`) beforehand.

    Without a `prior`, that with the lowest mean cross-entropy. This is convex in 1 / temperature,
    with the mean of (expected logit - the right one's) as its slope, whose zero is found by
    bisection.
    """
    strength = 1 / (len(labels) * prior**2)
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    own = np.take_along_axis(x, labels[:, None].astype(np.int64), axis=1)[:, 0]
    low, high = 1 / BOUNDS[1], 1 / BOUNDS[0]
    for _ in range(60):
        middle = (low + high) / 2
        weights = np.exp(middle * x)
        expected = (weights * x).sum(axis=1) / weights.sum(axis=1)
        slope = (expected - own).mean() + strength * math.log(middle) / middle
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(2 / (low + high))


def confidences(logits: Logits) -> NDArray[np.float64]:
    """The highest softmax probability of each image, (N,)."""
    x = logits.astype(np.float64)
    return np.asarray(1 / np.exp(x - x.max(axis=1, keepdims=True)).sum(axis=1))


def reliability(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = BINS
) -> list[Bin]:
    """The bins of equal width that aren't empty, by rising confidence."""
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found = [np.flatnonzero(place == i) for i in range(bins)]
    return [
        Bin(len(rows), float(confidence[rows].mean()), float(right[rows].mean()))
        for rows in found
        if len(rows)
    ]


def ece(confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy over the bins."""
    found = reliability(confidence, right, bins)
    return float(sum(b.images * abs(b.confidence - b.accuracy) for b in found) / len(right))


def threshold(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], precision: float = PRECISION
) -> float | None:
    """The lowest confidence from which on this fraction of images is right; None if none is."""
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    fraction = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last_of_equals = np.append(ordered[1:] < ordered[:-1], True)
    good = np.flatnonzero((fraction >= precision) & last_of_equals)
    return float(ordered[good[-1]]) if len(good) else None
