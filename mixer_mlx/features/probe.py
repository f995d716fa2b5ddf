"""A linear classifier on features, in closed form: ridge regression as big_vision's few-shot probe.

Features are standardised by the mean and standard deviation (+ 1e-5) of the training features, and
get a constant feature of 100; targets are +1 for the right class and -1 for the others
(google-research/big_vision, `evaluators/fewshot_lsr.py`). All in float64.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError

L2 = 2.0**10
"""big_vision's weight of the penalty on the squared weights."""

CONSTANT = 100.0
"""The constant feature."""
EPS = 1e-5
"""Added to standard deviations."""
_SCALES = 2.0 ** np.arange(0, 6.25, 0.25)

Features = NDArray[np.floating]
"""One row per image, (N, C)."""
Labels = NDArray[np.integer]
"""Classes, (N,), from 0."""
Scores = NDArray[np.float64]
"""(N, classes), about -1 to 1; the largest is the predicted class."""


@dataclass(frozen=True)
class Probe:
    """Scores are `features @ weight.T + bias`: weight (classes, C), bias (classes,), float64."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    l2: float = L2

    def scores(self, features: Features) -> Scores:
        """(N, C) -> (N, classes)."""
        return features.astype(np.float64) @ self.weight.T + self.bias

    def scaled(self, scale: float) -> "Probe":
        """The same classes with scores `scale` times as large; see `scale_for`."""
        return Probe(self.weight * scale, self.bias * scale, self.l2)


@dataclass(frozen=True)
class _System:
    """Standardised features and the constant one, (N, C + 1); targets (N, classes)."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    l2: float

    @property
    def dual(self) -> bool:
        """Whether the system of N examples is the smaller one."""
        return self.x.shape[0] < self.x.shape[1]

    def matrix(self) -> NDArray[np.float64]:
        """The regularised Gram matrix: of the examples, (N, N), or of the features."""
        x = self.x.T if not self.dual else self.x
        gram = x @ x.T
        gram[np.diag_indices_from(gram)] += self.l2
        return gram


def fit(features: Features, labels: Labels, classes: int, *, l2: float = L2) -> Probe:
    """The ridge solution for (N, C) features of N labels below `classes`.

    Solves a system of N or of C + 1 equations, whichever is smaller. A class without examples gets
    targets of -1 alone. Raises ConfigError for an empty or unusable training set.
    """
    system = _system(features, labels, classes, l2)
    if system.dual:
        solution = system.x.T @ np.linalg.solve(system.matrix(), system.y)
    else:
        solution = np.linalg.solve(system.matrix(), system.x.T @ system.y)
    weight = (solution[:-1] / system.std[:, None]).T
    return Probe(weight, CONSTANT * solution[-1] - weight @ system.mean, l2)


def leave_one_out(features: Features, labels: Labels, classes: int, *, l2: float = L2) -> Scores:
    """Each training example's scores by a probe that hasn't seen it, without fitting N probes.

    The residual of the probe without example i is r_i / (1 - h_i), for h the diagonal of the hat
    matrix. Mean and standard deviation stay those of all examples.
    """
    system = _system(features, labels, classes, l2)
    if system.dual:
        inverse = np.linalg.inv(system.matrix())
        return system.y - (inverse @ system.y) / np.diag(inverse)[:, None]
    projected = np.linalg.solve(system.matrix(), system.x.T).T  # (N, C + 1)
    residual = system.y - projected @ (system.x.T @ system.y)
    left = 1 - np.einsum("nc,nc->n", projected, system.x)
    return system.y - residual / left[:, None]


def out_of_fold(
    features: Features,
    labels: Labels,
    classes: int,
    *,
    folds: int = 5,
    seed: int = 0,
    l2: float = L2,
) -> Scores:
    """Each example's scores by a probe of the other folds, dealt evenly by class."""
    fold = np.empty(len(labels), int)
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(np.flatnonzero(labels == k)) for k in range(classes)])
    fold[order] = np.arange(len(order)) % folds
    scores = np.empty((len(labels), classes))
    for number in range(folds):
        held = fold == number
        if held.any():
            probe = fit(features[~held], labels[~held], classes, l2=l2)
            scores[held] = probe.scores(features[held])
    return scores


def probabilities(scores: Scores) -> Scores:
    """The softmax of each row."""
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def losses(scores: Scores, labels: Labels) -> NDArray[np.float64]:
    """Softmax cross-entropy in nats of each example, (N,)."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    right = np.take_along_axis(shifted, labels[:, None], axis=1)[:, 0]
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - right)


def scale_for(scores: Scores, labels: Labels) -> float:
    """The factor, 1 to 64, for which the softmax of held-out scores has the least mean loss.

    Ridge scores end near -1 and 1, so their softmax is almost uniform: with the factor
    probabilities mean something, and the predicted classes stay the same. N examples don't support
    a loss below 1 / (N + 2), the rate of errors that Laplace's rule of succession expects after N
    right answers, so that classes which can be separated don't become certain.
    """
    means = [losses(scores * scale, labels).mean() for scale in _SCALES]
    supported = np.maximum(means, 1 / (len(labels) + 2))
    return float(_SCALES[int(np.argmin(supported))])


def calibrated(features: Features, labels: Labels, classes: int, *, l2: float = L2) -> Probe:
    """The ridge solution, scaled so that the softmax of its scores means something.

    The scale is the best for leave-one-out scores, see `scale_for`.
    """
    held_out = leave_one_out(features, labels, classes, l2=l2)
    return fit(features, labels, classes, l2=l2).scaled(scale_for(held_out, labels))


def _system(features: Features, labels: Labels, classes: int, l2: float) -> _System:
    if features.ndim != 2 or not len(features) or len(features) != len(labels):
        raise ConfigError(
            f"Expected features (N, C) and N labels, not {features.shape} and {labels.shape}; use "
            "one vector for each image."
        )
    if not l2 > 0:
        raise ConfigError(f"l2 is {l2}; it must be above 0.")
    x = features.astype(np.float64)
    if not np.isfinite(x).all():
        raise ConfigError("Some features aren't finite; use an intact model and float32.")
    mean, std = x.mean(axis=0), x.std(axis=0) + EPS
    x = np.pad((x - mean) / std, ((0, 0), (0, 1)), constant_values=CONSTANT)
    y = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    return _System(x, y, mean, std, l2)
