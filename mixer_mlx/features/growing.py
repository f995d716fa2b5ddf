"""A probe whose examples come and go one at a time, without looking at the others again.

Ridge regression needs its examples' sums and products alone, so only these are kept: a change costs
C x C multiplications, and `fit` a system of C equations, however many examples there are. The
result is that of `probe.fit`, up to rounding.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError

from .probe import CONSTANT, EPS, L2, Features, Probe


class GrowingProbe:
    """Examples of C numbers each, in classes by name."""

    def __init__(self, size: int, *, l2: float = L2) -> None:
        self._l2 = l2
        self._origin: NDArray[np.float64] | None = None
        self._products = np.zeros((size, size))
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        """The number of examples."""
        return sum(self._counts.values())

    def add(self, features: Features, label: str) -> None:
        """Examples of one class, (N, C)."""
        self._change(features, label, 1)

    def discard(self, features: Features, label: str) -> None:
        """Examples of one class that were added before."""
        self._change(features, label, -1)

    def _change(self, features: Features, label: str, sign: int) -> None:
        x = np.asarray(features, np.float64)
        if not np.isfinite(x).all():
            raise ConfigError("Some features aren't finite; use an intact model and float32.")
        if not len(x):
            return
        if self._origin is None:  # near the mean, so that the products lose no digits below
            self._origin = x.mean(axis=0)
        x = x - self._origin
        self._products += (sign * x).T @ x
        self._sums[label] = self._sums.get(label, 0) + sign * x.sum(axis=0)
        self._counts[label] = self._counts.get(label, 0) + sign * len(x)

    def rename(self, old: str, new: str) -> None:
        """Give a class another name."""
        if old in self._counts:
            self._sums[new], self._counts[new] = self._sums.pop(old), self._counts.pop(old)

    def fit(self, classes: Sequence[str]) -> Probe:
        """The ridge solution for the classes in this order, which must include all with examples.

        Raises ConfigError without examples.
        """
        total = len(self)
        if not total or self._origin is None:
            raise ConfigError("There are no examples yet; add some images.")
        nothing = np.zeros_like(self._origin)
        counts = np.array([self._counts.get(name, 0) for name in classes])
        sums = np.stack([self._sums.get(name, nothing) for name in classes], axis=1)  # (C, K)
        mean = sums.sum(axis=1) / total
        matrix = np.outer(-total * mean, mean)
        matrix += self._products
        std = np.sqrt(np.maximum(np.diag(matrix), 0) / total) + EPS
        matrix *= 1 / std[:, None]
        matrix *= 1 / std
        matrix[np.diag_indices_from(matrix)] += self._l2
        # Targets are +1 and -1; the -1 of all examples cancels, as their mean is 0.
        weight = np.linalg.solve(matrix, 2 * (sums - np.outer(mean, counts)) / std[:, None])
        weight = (weight / std[:, None]).T
        constant = CONSTANT**2 * (2 * counts - total) / (total * CONSTANT**2 + self._l2)
        return Probe(weight, constant - weight @ (mean + self._origin), self._l2)
