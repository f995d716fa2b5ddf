"""The report's sections on how far its numbers can be trusted, each with what to do about it."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mixer_mlx.calibration import Bin, Calibration, ece, reliability
from mixer_mlx.markup import text

from .doubts import DOUBTFUL
from .evaluate import Outcome

WELL_CALIBRATED = 0.05
"""An expected calibration error up to this is small beside what validation can measure."""
FEW = 100
"""With fewer images, an expected calibration error is mostly chance."""

_SIZE, _LEFT, _TOP = 220, 34, 12


def reliability_section(
    outcomes: Sequence[Outcome], calibration: Calibration | None, *, fitted: bool
) -> str:
    """The reliability diagram and its error; `fitted`: the temperature comes from these images."""
    confidence = np.array([outcome.probability for outcome in outcomes])
    right = np.array([outcome.right for outcome in outcomes])
    error = ece(confidence, right)
    facts = [f"Expected calibration error {error:.1%} on {len(outcomes):,} images."]
    if calibration:
        facts.append(
            f"Logits are divided by a temperature of {calibration.temperature:.2f}"
            + (
                f", fitted on these images; before, the error was {calibration.ece_before:.1%}."
                if fitted
                else "."
            )
        )
    facts.append(_advice(error, len(outcomes), calibration, confidence, right))
    return f"<p>{' '.join(facts)}</p>\n{_diagram(reliability(confidence, right))}"


def _advice(
    error: float,
    images: int,
    calibration: Calibration | None,
    confidence: np.ndarray,
    right: np.ndarray,
) -> str:
    if images < FEW:
        return "So few images say little about probabilities: add validation images."
    if error > WELL_CALIBRATED:
        way = "surer" if confidence.mean() > right.mean() else "less sure"
        return (
            f"The model is {way} than it is right: use its probabilities to rank images, not as "
            "chances, or fine-tune with more validation images."
        )
    if calibration and calibration.reject_below is not None:
        return (
            "The probabilities can be taken at their word. Treat images below "
            f"{calibration.reject_below:.0%} as unsure: 95 % of the others are right."
        )
    return "The probabilities can be taken at their word."


def _diagram(bins: Sequence[Bin]) -> str:
    """Accuracy by confidence; on the dashed line, both are equal."""
    most = max(b.images for b in bins)
    marks = "".join(
        f'<circle cx="{_x(b.confidence):.1f}" cy="{_y(b.accuracy):.1f}" '
        f'r="{3 + 6 * (b.images / most) ** 0.5:.1f}"><title>{b.images} images: confidence '
        f"{b.confidence:.1%}, accuracy {b.accuracy:.1%}</title></circle>"
        for b in bins
    )
    ticks = "".join(
        f'<text x="{_x(v):.0f}" y="{_TOP + _SIZE + 16}" text-anchor="middle">{v:.0%}</text>'
        f'<text x="{_LEFT - 5}" y="{_y(v) + 4:.0f}" text-anchor="end">{v:.0%}</text>'
        for v in (0.0, 0.5, 1.0)
    )
    return (
        f'<svg class="reliability" viewBox="0 0 {_LEFT + _SIZE + 20} {_TOP + _SIZE + 38}" '
        'role="img" aria-label="Accuracy by confidence">'
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIZE}" height="{_SIZE}"/>'
        f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>{marks}{ticks}'
        f'<text x="{_x(0.5)}" y="{_TOP + _SIZE + 32}" text-anchor="middle">confidence; upwards: '
        "accuracy</text></svg>"
    )


def _x(value: float) -> float:
    return _LEFT + _SIZE * value


def _y(value: float) -> float:
    return _TOP + _SIZE * (1 - value)


def confusion_advice(labels: Sequence[str], outcomes: Sequence[Outcome]) -> str:
    """What to do about the most frequent confusion, as a paragraph; empty without any."""
    wrong = Counter((o.target, o.predicted) for o in outcomes if not o.right)
    if not wrong:
        return ""
    (true, predicted), count = wrong.most_common(1)[0]
    images = "1 image" if count == 1 else f"{count} images"
    return (
        f"<p>{images} of <em>{text(labels[true])}</em> {'was' if count == 1 else 'were'} taken for "
        f"<em>{text(labels[predicted])}</em>, the most for a pair of classes: check their labels, "
        "or add images of both.</p>"
    )


def classes_advice(labels: Sequence[str], outcomes: Sequence[Outcome]) -> str:
    """What to do about the weakest class, as a paragraph; empty if all are right."""
    total = Counter(o.target for o in outcomes)
    right = Counter(o.target for o in outcomes if o.right)
    weakest = min(total, key=lambda i: (right[i] / total[i], -total[i], i))
    if right[weakest] == total[weakest]:
        return ""
    return (
        f"<p>The weakest class is <em>{text(labels[weakest])}</em>, with {right[weakest]} of "
        f"{total[weakest]} images right: add training images of it first.</p>"
    )


MAX_DOUBTS = 10


def labels_advice(labels: Sequence[str], outcomes: Sequence[Outcome]) -> str:
    """Images whose label the model takes for hardly possible, by pairs of classes, as a list."""
    doubted = Counter(
        (o.target, o.predicted) for o in outcomes if not o.right and o.loss > -math.log(DOUBTFUL)
    )
    if not doubted:
        return (
            f"<p>The model gives every image's label {DOUBTFUL:.0%} or more: no label is worth "
            "checking for this reason.</p>"
        )
    lines = "".join(
        f"<li>{_photos(count)} in <em>{text(labels[a])}</em> {'look' if count > 1 else 'looks'} "
        f"like <em>{text(labels[b])}</em></li>"
        for (a, b), count in doubted.most_common(MAX_DOUBTS)
    )
    rest = len(doubted) - MAX_DOUBTS
    more = f"<p>And {rest:,} other pairs of classes.</p>" if rest > 0 else ""
    return (
        f"<p>The model gives these labels less than {DOUBTFUL:.0%}: check them, since either the "
        f"label is wrong or the model is.</p><ul>{lines}</ul>{more}"
    )


def _photos(count: int) -> str:
    return "1 photo" if count == 1 else f"{count:,} photos"
