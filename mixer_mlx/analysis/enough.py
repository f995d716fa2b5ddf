"""Whether there are enough examples: accuracy by cross-validation, and what more have brought."""

from collections.abc import Sequence
from dataclasses import dataclass

from mixer_mlx.errors import ConfigError
from mixer_mlx.features import probe
from mixer_mlx.features.dataset import Labelled
from mixer_mlx.features.few_shot import ShotResult, few_shot

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
    shots = [(int(one.shots or max(counts.values())), one.mean) for one in curve_of(labelled)]
    return Enough(right / len(labels), low, high, len(labels), tuple(shots))


PARTS = (0.25, 0.5, None)
"""The fractions of the training images that the learning curve is measured with."""
RISING = 0.01
"""If the second half of the images brought more, more are expected to help."""


def learning_curve(train: Labelled, val: Labelled) -> list[ShotResult]:
    """The probe's accuracy on `val` with 25, 50 and 100 % of each class's training images.

    Parts are drawn three times. Raises ConfigError for a class without readable images.
    """
    return few_shot(train, val, PARTS)


def curve_advice(curve: Sequence[ShotResult]) -> str:
    """Whether more photos would help, as a sentence or two."""
    half, whole = curve[-2], curve[-1]
    gain = whole.mean - half.mean
    low, high = wilson(whole.mean * whole.tested, whole.tested)
    if gain > RISING:
        text = f"The second half of the images brought {100 * gain:.1f} points: add more photos."
    else:
        text = (
            f"The second half of the images brought {max(0, 100 * gain):.1f} points: more photos "
            "of the same kind would hardly help; look at the mistakes."
        )
    if (high - low) / 2 > abs(gain):
        text += (
            f" With {whole.tested:,} validation images, so small a difference may be chance: add "
            "some of those first."
        )
    return text
