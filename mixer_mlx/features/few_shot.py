"""How well a few examples of each class suffice: the paper's linear few-shot probe."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo

from . import probe
from .dataset import Labelled
from .probe import L2, Probe

DEFAULT_SHOTS = (1, 5, 10, 25)

Shots: TypeAlias = int | float | None


@dataclass(frozen=True)
class ShotResult:
    """Accuracies (0 to 1) with `shots` examples of each class, one for each seed.

    `shots` None are all, a float is that fraction of each class. They were measured on `tested`
    images, the training took `images`.
    """

    shots: Shots
    images: int
    accuracies: tuple[float, ...]
    tested: int

    @property
    def mean(self) -> float:
        """Mean accuracy over the seeds."""
        return float(np.mean(self.accuracies))

    @property
    def name(self) -> str:
        """Of the number of shots: "5", "25 %" or "all"."""
        if self.shots is None:
            return "all"
        return str(self.shots) if isinstance(self.shots, int) else f"{self.shots:.0%}"

    @property
    def spread(self) -> float:
        """Sample standard deviation over the seeds; 0 for one seed."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0


def few_shot(
    train: Labelled,
    test: Labelled,
    shots: Sequence[Shots] = DEFAULT_SHOTS,
    *,
    seeds: int = 3,
    l2: float = L2,
) -> list[ShotResult]:
    """Fit a probe on each number of examples of each class, and measure it on all of `test`.

    Examples are drawn anew for each seed; with more shots, some are added. None stands for all
    training images, which need one fit. Raises ConfigError if a class has fewer images than shots,
    or none at all.
    """
    check_shots(train, shots)
    return [_result(train, test, count, seeds if count else 1, l2) for count in shots]


def _result(train: Labelled, test: Labelled, shots: Shots, seeds: int, l2: float) -> ShotResult:
    if not len(test.labels):
        raise ConfigError("No validation image could be read; check them with `analysis.check`.")
    accuracies = []
    for seed in range(seeds):
        rows = drawn(train.labels, len(train.dataset.classes), shots, seed)
        fitted = _fit(train, rows, l2)
        right = fitted.scores(test.features).argmax(axis=1) == test.labels
        accuracies.append(float(right.mean()))
    return ShotResult(shots, len(rows), tuple(accuracies), len(test.labels))


def check_shots(train: Labelled, shots: Sequence[Shots]) -> None:
    """Raise ConfigError for a class with fewer images than shots, or with none."""
    counts = np.bincount(train.labels, minlength=len(train.dataset.classes))
    least = int(counts.argmin())
    most = max((count for count in shots if isinstance(count, int)), default=1)
    if counts[least] < most:
        name, few = train.dataset.names()[least], int(counts[least])
        if not few:
            raise ConfigError(
                f"The class {name} has no readable training images; add some, or remove the class."
            )
        raise ConfigError(
            f"The class {name} has {few} readable training images, fewer than {most} shots; ask "
            f"for {few} or fewer."
        )


def drawn(labels: NDArray[np.int32], classes: int, shots: Shots, seed: int) -> list[int]:
    """Rows of `shots` random examples of each class, or all rows.

    Of a fraction at least one of each class.
    """
    if shots is None:
        return list(range(len(labels)))
    rows: list[int] = []
    for label in range(classes):
        rng = np.random.default_rng([seed, label])
        order = rng.permutation(np.flatnonzero(labels == label))
        count = shots if isinstance(shots, int) else max(1, round(shots * len(order)))
        rows += order[:count].tolist()
    return rows


def _fit(train: Labelled, rows: list[int], l2: float) -> Probe:
    classes = len(train.dataset.classes)
    return probe.fit(train.features[rows], train.labels[rows], classes, l2=l2)


def classifier_from(train: Labelled, shots: int | None, *, l2: float = L2) -> Probe:
    """The probe of the first seed, `probe.calibrated`."""
    classes = len(train.dataset.classes)
    rows = drawn(train.labels, classes, shots, 0)
    return probe.calibrated(train.features[rows], train.labels[rows], classes, l2=l2)


def with_head(
    model: MlpMixer, info: ModelInfo, head: Probe, classes: Sequence[str]
) -> tuple[MlpMixer, ModelInfo]:
    """The model with a probe of its pre-logits as its head, in the model's dtype."""
    model.require_unquantized("get another head", info.origin)
    config = info.config.replace(num_classes=len(classes))
    made = MlpMixer(config)
    weights: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    weights |= {
        "head.weight": mx.array(head.weight.astype(np.float32)).astype(model.dtype),
        "head.bias": mx.array(head.bias.astype(np.float32)).astype(model.dtype),
    }
    made.load_weights(list(weights.items()), strict=True)
    mx.eval(made.parameters())
    source = {**info.source, "head": f"few-shot ridge, l2 {head.l2:g}"}
    labels = tuple(classes)
    return made, replace(info, config=config, labels=labels, source=source, calibration=None)
