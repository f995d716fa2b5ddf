"""What `fit` validates by: metrics with names, one of which says which weights are the best."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.analysis.evaluate import Metrics
from mixer_mlx.errors import ConfigError
from mixer_mlx.model import MlpMixer

Scores: TypeAlias = Mapping[str, float]
"""Metrics by name."""
Validate: TypeAlias = Callable[[MlpMixer], Metrics | Scores]
"""A model -> its metrics on validation images."""
Score: TypeAlias = str | Callable[[Scores], float]
"""What makes the best weights: a metric by its name, with "-" before it if lower is better, e.g.
"-loss", or a function of all metrics."""

_WORST = -1e9  # instead of values that JSON can't hold


def by_name(found: Metrics | Scores) -> dict[str, float]:
    """Metrics as floats. Raises ConfigError for anything but names with numbers."""
    if isinstance(found, Metrics):
        found = {name: dataclasses.asdict(found)[name] for name in ("top1", "top5", "loss")}
    try:
        return {str(name): float(value) for name, value in found.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"validate returned {found!r}; it must return Metrics, or a dict of names and numbers."
        ) from error


def quality(scores: Scores, score: Score | None) -> tuple[float, float]:
    """Sort key of the best weights: without a `score` higher top-1, then lower loss."""
    if score is None and "top1" not in scores:
        raise ConfigError(
            f"validate returned {_listed(scores)}; choose what makes the best weights by score, a "
            'name, or "-" and a name if lower is better.'
        )
    if score is None:
        return _finite(scores["top1"]), _finite(-scores.get("loss", 0.0))
    if callable(score):
        return _finite(float(score(scores))), 0.0
    name = score.removeprefix("-")
    if name not in scores:
        raise ConfigError(f"score is {score!r}, and validate returned {_listed(scores)}.")
    return _finite(-scores[name] if name != score else scores[name]), 0.0


def mean_average_precision(outputs: NDArray[Any], targets: NDArray[Any]) -> float:
    """The mean over classes of average precision: logits (N, K), targets (N, K) of 0 and 1.

    A class's average precision is the sum over thresholds n of (R_n - R_{n-1}) P_n, without
    interpolation, as in scikit-learn; equal outputs share a threshold. Classes without a positive
    example don't count. Raises ConfigError if there is none, or for other shapes.
    """
    outputs, targets = np.asarray(outputs), np.asarray(targets)
    if outputs.shape != targets.shape or outputs.ndim != 2:
        raise ConfigError(
            f"Expected outputs and targets of the same shape (N, K), got {outputs.shape} and "
            f"{targets.shape}."
        )
    found = [
        _average_precision(outputs[:, k], targets[:, k] > 0.5)
        for k in range(outputs.shape[1])
        if (targets[:, k] > 0.5).any()
    ]
    if not found:
        raise ConfigError("No class has a positive example; average precision needs one.")
    return float(np.mean(found))


def _average_precision(outputs: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    order = np.argsort(-outputs, kind="stable")
    hits = np.cumsum(positive[order])
    last_of_equals = np.append(np.diff(outputs[order]) != 0, True)
    ranks = np.flatnonzero(last_of_equals) + 1
    precision, recall = hits[ranks - 1] / ranks, hits[ranks - 1] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def _finite(value: float) -> float:
    return max(min(value, -_WORST), _WORST) if math.isfinite(value) else _WORST


def _listed(scores: Scores) -> str:
    return ", ".join(map(repr, scores)) or "no metrics"
