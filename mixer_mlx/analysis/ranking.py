"""How well scores rank, for images of several classes."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixer_mlx.errors import ConfigError


def average_precision(scores: ArrayLike, targets: ArrayLike) -> NDArray[np.float64]:
    """Of each class: scores (N, K), targets (N, K) of 0 and 1 -> (K,); NaN without any 1.

    The area under the steps of precision over recall, as scikit-learn's `average_precision_score`:
    images of equal scores count together. Their mean over classes (`np.nanmean`) is the mean
    average precision. Raises ConfigError for other shapes or targets.
    """
    values, wanted = np.asarray(scores, np.float64), np.asarray(targets)
    if values.ndim != 2 or wanted.shape != values.shape or not np.isin(wanted, (0, 1)).all():
        raise ConfigError(
            f"Expected scores and targets of 0 and 1 of one shape (N, K), not {values.shape} and "
            f"{wanted.shape}."
        )
    return np.array([_one(values[:, k], wanted[:, k]) for k in range(values.shape[1])])


def _one(scores: NDArray[np.float64], targets: NDArray[np.generic]) -> float:
    if not targets.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    right = np.cumsum(targets[order])[ends]
    recall = np.append(0, right / right[-1])
    return float((np.diff(recall) * (right / (ends + 1))).sum())
