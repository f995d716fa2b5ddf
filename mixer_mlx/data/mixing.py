"""Mixing the images of a batch, and their classes with them (mixup, CutMix); balancing classes.

Each image is mixed with the one before it in the batch, the first with the last; a batch is
shuffled, so that this is any other image. What is mixed stays uint8, rounded to the nearest: at
most half a grey level from the exact mixture.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class SoftLabels(NamedTuple):
    """Targets of more than one class, or with weights, for a batch of N.

    Example i has classes labels[:, i], the largest part first, with weights[:, i]: its target is
    the sum of weights[t, i] times the one-hot vector of labels[t, i]. int32 and float32 (T, N).
    """

    labels: NDArray[np.int32]
    weights: NDArray[np.float32]


Labels = NDArray[np.int32] | SoftLabels
"""Classes (N,), or targets that say more."""


@dataclass(frozen=True)
class Mixing:
    """One draw for a whole batch; with both, each batch is mixed by one of them, half and half.

    `mixup` is p in Beta(p, p) (Zhang et al., arXiv 1710.09412). The share a of the image itself
    becomes max(a, 1 - a), as in big_vision; timm takes a and mixes the first with the last, which
    gives, but for their order, the same mixtures for a and 1 - a. `cutmix` is that of a box's share
    of the area (Yun et al., arXiv 1905.04899), as timm does it: the box's centre is anywhere, the
    image's edges cut the box, and the classes' shares are those of the areas that come out.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int32], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], SoftLabels]:
        """Pixels (N, H, W, channels) and labels (N,) -> new ones."""
        if self.cutmix and (not self.mixup or rng.random() < 0.5):
            share = float(rng.beta(self.cutmix, self.cutmix))
            height, width = pixels.shape[1:3]
            centre = int(rng.integers(height)), int(rng.integers(width))
            box, share = cut_box((height, width), share, centre)
            mixed = paste(pixels, box)
        else:
            a = float(rng.beta(self.mixup, self.mixup))
            share = max(a, 1 - a)
            mixed = blend(pixels, share)
        return mixed, _mixed_labels(labels, share)


def blend(pixels: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """share x each image + (1 - share) x the one before it."""
    mixed = np.empty_like(pixels)
    own, other = np.float32(share), np.float32(1 - share)
    for i in range(len(pixels)):  # one by one: a batch in float32 takes four times its memory
        mixed[i] = np.rint(pixels[i] * own + pixels[i - 1] * other)
    return mixed


def paste(pixels: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Each image with a box (top, bottom, left, right) of the one before it."""
    top, bottom, left, right = box
    mixed = pixels.copy()
    part = pixels[:, top:bottom, left:right]
    mixed[:, top:bottom, left:right] = np.roll(part, 1, axis=0)
    return mixed


def cut_box(
    size: tuple[int, int], share: float, centre: tuple[int, int]
) -> tuple[tuple[int, int, int, int], float]:
    """The box for an image that keeps `share` of (height, width), and what it really keeps."""
    ends = []
    for side, middle in zip(size, centre, strict=True):
        cut = int(side * math.sqrt(1 - share))
        ends += [max(0, middle - cut // 2), min(side, middle + (cut + 1) // 2)]
    top, bottom, left, right = ends
    kept = 1 - (bottom - top) * (right - left) / (size[0] * size[1])
    return (top, bottom, left, right), kept


def _mixed_labels(labels: NDArray[np.int32], share: float) -> SoftLabels:
    both = np.stack([labels, np.roll(labels, 1)])
    weights = np.repeat(np.array([[share], [1 - share]], np.float32), len(labels), axis=1)
    if share < 0.5:  # copies: MLX takes no arrays that run backwards
        both, weights = both[::-1].copy(), weights[::-1].copy()
    return SoftLabels(both, weights)


def class_weights(labels: NDArray[np.int32], classes: int) -> NDArray[np.float32]:
    """n / (K n_c) for each class c: a mean of 1 over the n images; 0 for a class without any.

    K counts the classes that have images, n_c the images of class c.
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
