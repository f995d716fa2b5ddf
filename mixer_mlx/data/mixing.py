"""Mixup and CutMix over the images and classes of a batch; class balancing.

Each image is mixed with the one before it in the batch, the first with the last; as batches are
shuffled, that is a random partner. Mixed pixels are rounded to uint8, at most half a grey level
from the exact mixture.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # numpy.random takes as long to import as the rest of NumPy's modules
    from numpy.random import Generator


class SoftLabels(NamedTuple):
    """Targets of T weighted classes for a batch of N: int32 and float32 (T, N).

    The target of example i is the sum over t of weights[t, i] times the one-hot vector of
    labels[t, i], with the largest of mixed classes first.
    """

    labels: NDArray[np.int32]
    weights: NDArray[np.float32]


Labels = NDArray[np.int32] | SoftLabels
"""Classes (N,), or mixed or weighted targets."""


@dataclass(frozen=True)
class Mixing:
    """One draw for a whole batch; with both, each batch uses either, with probability 0.5.

    `mixup` is p in Beta(p, p) (Zhang et al., arXiv 1710.09412). The image's own weight a becomes
    max(a, 1 - a), as in big_vision; timm takes a and mixes the first image with the last, which
    gives the same mixtures, apart from their order, for a and 1 - a. `cutmix` is the same parameter
    for the fraction of the area that an image keeps (Yun et al., arXiv 1905.04899), as in timm: the
    box is centred anywhere, the image's edges cut it off, and the classes are weighted by the
    resulting areas.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int32], rng: "Generator"
    ) -> tuple[NDArray[np.uint8], SoftLabels]:
        """Pixels (N, H, W, channels) and labels (N,) -> new ones."""
        if self.cutmix and (not self.mixup or rng.random() < 0.5):
            weight = float(rng.beta(self.cutmix, self.cutmix))
            height, width = pixels.shape[1:3]
            centre = int(rng.integers(height)), int(rng.integers(width))
            box, weight = cut_box((height, width), weight, centre)
            mixed = paste(pixels, box)
        else:
            a = float(rng.beta(self.mixup, self.mixup))
            weight = max(a, 1 - a)
            mixed = blend(pixels, weight)
        return mixed, _mixed_labels(labels, weight)


def blend(pixels: NDArray[np.uint8], weight: float) -> NDArray[np.uint8]:
    """weight * each image + (1 - weight) * the one before it."""
    mixed = np.empty_like(pixels)
    own, other = np.float32(weight), np.float32(1 - weight)
    for i in range(len(pixels)):  # one by one: a float32 batch takes four times the memory
        mixed[i] = np.rint(pixels[i] * own + pixels[i - 1] * other)
    return mixed


def paste(pixels: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Each image with a box (top, bottom, left, right) of the one before it."""
    top, bottom, left, right = box
    mixed = pixels.copy()
    mixed[:, top:bottom, left:right] = np.roll(pixels[:, top:bottom, left:right], 1, axis=0)
    return mixed


def cut_box(
    size: tuple[int, int], kept: float, centre: tuple[int, int]
) -> tuple[tuple[int, int, int, int], float]:
    """The box to cut from (height, width) to keep a fraction, and the fraction really kept."""
    ends = []
    for side, middle in zip(size, centre, strict=True):
        cut = int(side * math.sqrt(1 - kept))
        ends += [max(0, middle - cut // 2), min(side, middle + (cut + 1) // 2)]
    top, bottom, left, right = ends
    kept = 1 - (bottom - top) * (right - left) / (size[0] * size[1])
    return (top, bottom, left, right), kept


def _mixed_labels(labels: NDArray[np.int32], weight: float) -> SoftLabels:
    both = np.stack([labels, np.roll(labels, 1)])
    weights = np.repeat(np.array([[weight], [1 - weight]], np.float32), len(labels), axis=1)
    if weight < 0.5:  # copies: MLX rejects arrays with negative strides
        both, weights = both[::-1].copy(), weights[::-1].copy()
    return SoftLabels(both, weights)


def class_weights(labels: NDArray[np.int32], classes: int) -> NDArray[np.float32]:
    """Weights n / (K n_c) for each class c, with a mean of 1 over the n images; 0 without images.

    K counts the classes that have images, n_c the images of class c.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 0).astype(np.float32)


def weighted(labels: Labels, weights: NDArray[np.float32]) -> SoftLabels:
    """Targets multiplied by the weights (K,) of their classes."""
    if not isinstance(labels, SoftLabels):
        labels = SoftLabels(labels[None], np.ones((1, len(labels)), np.float32))
    return SoftLabels(labels.labels, labels.weights * weights[labels.labels])


def drawn_order(labels: NDArray[np.int32], rng: "Generator") -> NDArray[np.intp]:
    """N indices drawn with replacement, each class with equal probability."""
    weights = 1 / np.bincount(labels)[labels]
    return rng.choice(len(labels), len(labels), p=weights / weights.sum())


def repeats(order: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each position, how often its value occurred before."""
    by_value = np.argsort(order, kind="stable")
    _, first, counts = np.unique(order[by_value], return_index=True, return_counts=True)
    found = np.empty_like(order)
    found[by_value] = np.arange(len(order)) - np.repeat(first, counts)
    return found
