"""Classes with few pictures made to count as much as those with many."""

import numpy as np
from numpy.typing import NDArray

from .mixing import Labels, SoftLabels


def class_weights(labels: NDArray[np.int32], classes: int) -> NDArray[np.float32]:
    """n / (K n_c) for each class c: a mean of 1 over the n pictures; 0 for a class without any.

    K counts the classes that have pictures, n_c the pictures of class c.
    """
    counts = np.bincount(labels, minlength=classes)
    share = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return np.where(counts > 0, share, 0).astype(np.float32)


def weighted(labels: Labels, weights: NDArray[np.float32]) -> SoftLabels:
    """Targets with every class multiplied by its weight (K,)."""
    if not isinstance(labels, SoftLabels):
        labels = SoftLabels(labels[None], np.ones((1, len(labels)), np.float32))
    return SoftLabels(labels.labels, labels.weights * weights[labels.labels])


def drawn_order(labels: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.intp]:
    """As many indices as labels, drawn with replacement: every class is as likely as another."""
    share = 1 / np.bincount(labels)[labels]
    return rng.choice(len(labels), len(labels), p=share / share.sum())


def repeats(order: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each position, how often its value came before."""
    by_value = np.argsort(order, kind="stable")
    _, first, counts = np.unique(order[by_value], return_index=True, return_counts=True)
    found = np.empty_like(order)
    found[by_value] = np.arange(len(order)) - np.repeat(first, counts)
    return found
