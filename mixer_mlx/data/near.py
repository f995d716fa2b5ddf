"""Splits that keep near-duplicate images together, so that validation sees nothing of training.

Images are near-duplicates by the hashes of `mixer check`; a chain of them is one group.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError, ImageError
from mixer_mlx.images.decode import opened, rgb
from mixer_mlx.images.hashing import (
    FLAT,
    Print,
    joined,
    members,
    near_identical,
    pixel_digest,
    reduced,
)
from mixer_mlx.images.pillow import quietly
from mixer_mlx.runtime.threads import in_threads, workers

from .dataset import Dataset, Entry, held_counts, shuffled

MOST = 20
"""A group of more images, and of more than half of a class, isn't kept together: it consists of
simple pictures. Of scikit-learn's 1,797 digits, 160 of 178 zeros would be one group."""


@dataclass(frozen=True)
class Groups:
    """Near-duplicates among N images: those with the same number in `of`, (N,), are one group.

    `simple` are classes most of whose images look alike; only identical ones are a group there.
    """

    of: NDArray[np.intp]
    simple: tuple[str, ...] = ()

    def several(self) -> list[NDArray[np.intp]]:
        """The groups of two or more images, in order of their first."""
        order = np.argsort(self.of, kind="stable")
        parts = np.split(order, 1 + np.flatnonzero(np.diff(self.of[order])))
        return sorted((part for part in parts if len(part) > 1), key=lambda part: int(part[0]))


def near_duplicates(
    dataset: Dataset, tick: Callable[[int, int], None] = lambda done, failed: None
) -> Groups:
    """Decode every image, in threads, and group them; one that can't be read is alone.

    `tick` gets the numbers of images done and failed.
    """
    prints: dict[int, Print] = {}
    seen = in_threads(_fingerprint, dataset.paths, ahead=8 * workers())
    for index, found in enumerate(seen):
        if found is not None:
            prints[index] = found
        tick(index + 1, index + 1 - len(prints))
    return _grouped(dataset, prints)


def _fingerprint(entry: Entry) -> Print | None:
    try:
        with opened(entry) as header, quietly("compared", "shrink it"):
            image = rgb(header)
            grey = reduced(image).tobytes()
            flat = max(grey) - min(grey) < FLAT
            # Otherwise equal pixels have equal grey values, which are faster to compare.
            return (pixel_digest(image) if flat else grey), grey
    except ImageError:
        return None


def _grouped(dataset: Dataset, prints: dict[int, Print]) -> Groups:
    index = list(prints)
    identical = members(pixels for pixels, _ in prints.values())
    near = near_identical(list(prints.values()))
    totals = np.bincount(dataset.labels, minlength=len(dataset.classes))
    of, simple = np.arange(len(dataset)), set[int]()
    for group in joined(len(index), _chain([*identical, *near])):
        rows = np.array([index[number] for number in group])
        classes, counts = np.unique(dataset.labels[rows], return_counts=True)
        most = classes[2 * counts > totals[classes]].tolist()
        if len(rows) > MOST and most:
            simple.update(most)
        else:
            of[rows] = rows[0]
    for group in identical:
        rows = np.array([index[number] for number in group])
        of[rows] = of[rows[0]]
    return Groups(of, tuple(dataset.names()[label] for label in sorted(simple)))


def _chain(groups: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    return ((group[0], other) for group in groups for other in group[1:])


def held_out_together(
    dataset: Dataset, fraction: float, seed: int, groups: Groups
) -> NDArray[np.bool_]:
    """Which images are held out of each class, (N,), as `held_out`, with each group on one side.

    Images without near-duplicates are taken first, so that the ones measured on are independent;
    without any group, they are those of `held_out`. A class whose images are all one group gives
    none. Raises ConfigError for a fraction outside 0 to 1.
    """
    several = groups.several()
    alone = np.ones(len(dataset), bool)
    for rows in several:
        alone[rows] = False
    held = np.zeros(len(dataset), bool)
    targets = held_counts(dataset, fraction)
    for order, count in zip(shuffled(dataset, seed), targets.tolist(), strict=True):
        held[order[alone[order]][:count]] = True
    missing = targets - _counts(dataset, held)
    left = _counts(dataset, ~held)
    for needed in (False, True):  # then those without which a class would give none
        for rows in _smallest_first(several, seed):
            if held[rows[0]]:
                continue
            classes, counts = np.unique(dataset.labels[rows], return_counts=True)
            gap = missing[classes]
            closer = np.abs(gap - counts).sum() < np.abs(gap).sum()
            first = (gap == targets[classes]) & (gap > 0)
            if (first.any() if needed else closer) and (left[classes] > counts).all():
                held[rows] = True
                missing[classes] -= counts
                left[classes] -= counts
    return held


def _counts(dataset: Dataset, chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
    return np.bincount(dataset.labels[chosen], minlength=len(dataset.classes))


def _smallest_first(several: Sequence[NDArray[np.intp]], seed: int) -> list[NDArray[np.intp]]:
    order = np.random.default_rng(seed).permutation(len(several))
    return sorted((several[number] for number in order), key=len)


def folds(dataset: Dataset, count: int, seed: int, groups: Groups) -> NDArray[np.intp]:
    """Deal the images into `count` folds, (N,), from 0, evenly by class; a group is in one fold.

    Raises ConfigError for fewer than two folds, and for more than there are groups.
    """
    if not 2 <= count <= len(np.unique(groups.of)):
        raise ConfigError(
            f"Expected 2 or more `folds`, and no more than images that differ, not {count}."
        )
    have = np.zeros((count, len(dataset.classes)), int)
    fold = np.full(len(dataset), -1)
    several = _smallest_first(groups.several(), seed)[::-1]
    singles = (row[None] for order in shuffled(dataset, seed) for row in order)
    for rows in (*several, *singles):
        if fold[rows[0]] < 0:
            classes, counts = np.unique(dataset.labels[rows], return_counts=True)
            same = have[:, classes] @ counts
            chosen = int(np.lexsort((have.sum(axis=1), same))[0])
            fold[rows] = chosen
            have[chosen, classes] += counts
    return fold
