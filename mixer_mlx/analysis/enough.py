"""Whether there are enough examples: accuracy by cross-validation, and what more have brought."""

from dataclasses import dataclass

from mixer_mlx.errors import ConfigError
from mixer_mlx.features import probe
from mixer_mlx.features.dataset import Labelled

from .doubts import FOLDS, curve_of
from .interval import wilson


@dataclass(frozen=True)
class Enough:
    """Accuracy on examples that a probe hasn't seen, 0 to 1, and its 95 % interval.

    `curve` has the accuracy with so many examples of each class, for all with the number of the
    largest class; see `doubts.curve_of`.
    """

    accuracy: float
    low: float
    high: float
    images: int
    curve: tuple[tuple[int, float], ...]


def enough(labelled: Labelled) -> Enough:
    """Cross-validate a probe in FOLDS parts, dealt evenly by class.

    Raises ConfigError for a class with fewer images than parts.
    """
    counts = labelled.dataset.counts()
    least = min(counts, key=lambda name: counts[name])
    if counts[least] < FOLDS:
        raise ConfigError(f"Each class needs {FOLDS} images for this; {least} has {counts[least]}.")
    features, labels, classes = labelled.features, labelled.labels, len(counts)
    scores = probe.out_of_fold(features, labels, classes, folds=FOLDS)
    right = int((scores.argmax(axis=1) == labels).sum())
    low, high = wilson(right, len(labels))
    shots = [(one.shots or max(counts.values()), one.mean) for one in curve_of(labelled)]
    return Enough(right / len(labels), low, high, len(labels), tuple(shots))
