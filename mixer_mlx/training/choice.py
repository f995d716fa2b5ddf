"""Which weights a run keeps at its end, where few validation images can tell them apart."""

import math
from collections.abc import Mapping

import numpy as np

from mixer_mlx.analysis.evaluate import Metrics
from mixer_mlx.choices import WeightsName

MARGIN = 0.5
"""How many standard errors of a difference in loss count as no difference."""


def chosen(found: Mapping[WeightsName, Metrics]) -> WeightsName:
    """Of "halfway", the end ("raw" or "ema", whichever has the lower loss) and "start", the first
    whose loss isn't above the lowest by more than MARGIN standard errors.

    Weights halfway between the start and the end are often better than both, and seldom much worse
    than either (WiSE-FT: Wortsman et al., arXiv 2109.01903).
    """
    ends: list[WeightsName] = ["raw", "ema"]
    end = min((name for name in ends if name in found), key=lambda name: _loss(found[name]))
    ranked: list[WeightsName] = ["halfway", end, "start"]
    lowest = min(ranked, key=lambda name: _loss(found[name]))
    return next(n for n in ranked if n == lowest or _as_good(found[n], found[lowest]))


def _loss(metrics: Metrics) -> float:
    return metrics.loss if math.isfinite(metrics.loss) else math.inf


def _as_good(metrics: Metrics, lowest: Metrics) -> bool:
    """By the differences in loss of the same images; without these, by the mean."""
    if not metrics.losses:
        return metrics.loss <= lowest.loss
    excess = np.subtract(metrics.losses, lowest.losses)
    error = excess.std() / math.sqrt(max(1, len(excess) - 1))
    return bool(excess.mean() <= MARGIN * error)
