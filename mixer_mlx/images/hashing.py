"""Fingerprints that find identical images and images that look alike.

Likeness is measured by the difference hash (dHash) of Neal Krawetz, "Kind of Like That",
hackerfactor.com, 2013: re-saving, shrinking or brightening an image changes few of its 64 bits;
mirroring or rotating it changes many. Images with little detail may have the same bits by chance,
so the grey values behind the bits must correlate too.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Print = tuple[bytes, bytes]
"""What identifies an image: `pixel_digest` or another key of its pixels, and `reduced` as bytes."""

NEAR = 4
"""Hashes that differ in at most this many bits may belong to the same image."""

ALIKE = 0.8
"""And their grey values must correlate at least this much. Of CIFAR-10's 60,000 images, 353 pairs
differ in 4 bits or fewer. Seven of them correlate less and show different things; the next 53 look
alike, though a few may show the same scene twice."""

FLAT = 8
"""If an image's grey values span less than this (of 255), its hash is noise."""

_BAND_PIXELS = 2**20
_MAX_BANDS = 16
"""Bands of four bits; narrower ones would hold too many images to save any work."""


def reduced(image: Image.Image) -> NDArray[np.uint8]:
    """An RGB image as dHash takes it: grey, (8, 9)."""
    return np.array(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS))


def dhashes(greys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Images from `reduced`, (N, 8, 9), to 64-bit hashes, (N,).

    A bit is 1 if a pixel is brighter than the one to its left; in reading order, the first bit is
    the highest.
    """
    bits = (greys[:, :, 1:] > greys[:, :, :-1]).reshape(len(greys), 64)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def pixel_digest(image: Image.Image) -> bytes:
    """A 16-byte digest of an image's size and pixels."""
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):  # in bands: a copy of all pixels could be too large
        bottom = min(top + rows, image.height)
        digest.update(image.crop((0, top, image.width, bottom)).tobytes())
    return digest.digest()


def near_identical(prints: Sequence[Print], near: int = NEAR) -> list[list[int]]:
    """Groups of images with different pixels that look alike, each along with its identical copies.

    Flat images are left out. See `groups_alike` for `near`.
    """
    copies: dict[bytes, list[int]] = {}
    greys: list[bytes] = []
    for index, (pixels, grey) in enumerate(prints):
        if max(grey) - min(grey) >= FLAT:
            if pixels not in copies:
                greys.append(grey)
            copies.setdefault(pixels, []).append(index)
    distinct = list(copies.values())
    stacked = np.frombuffer(b"".join(greys), np.uint8).reshape(-1, 8, 9)
    return [
        sorted(index for number in group for index in distinct[number])
        for group in groups_alike(stacked, near)
    ]


def groups_alike(greys: NDArray[np.uint8], distance: int) -> list[list[int]]:
    """Groups of indices of images that look alike, from `reduced`, (N, 8, 9).

    Two images look alike if their hashes differ in at most `distance` bits and their grey values
    correlate by at least ALIKE; groups that share an image are one. A group has two or more, in
    order.

    Hashes are compared only within a band: of `distance` + 1 bands of bits, two such hashes have
    one in common (the pigeonhole principle). Images of one group aren't compared again.
    """
    hashes, groups = dhashes(greys), _Groups(len(greys))
    for key in _bands(hashes, distance):
        order = np.argsort(key, kind="stable")
        ends = 1 + np.flatnonzero(np.diff(key[order]))
        for same in np.split(order, ends):
            if len(same) > 1:
                _join_alike(same, greys, hashes, distance, groups)
    return members(groups.of.tolist())


def _bands(hashes: NDArray[np.uint64], distance: int) -> Iterator[NDArray[np.uint64]]:
    """The bits of each band, (N,); one band without bits where they would be too narrow."""
    count = distance + 1
    if count > _MAX_BANDS:
        yield np.zeros_like(hashes)
        return
    edges = [64 * i // count for i in range(count + 1)]
    for low, high in pairwise(edges):
        yield (hashes >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)


def _join_alike(
    same: NDArray[np.intp],
    greys: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    distance: int,
    groups: "_Groups",
) -> None:
    """Join the images that look alike among those at the indices `same`."""
    if groups.are_one(same):
        return
    for place, row in enumerate(same[:-1], start=1):
        others = same[place:]
        others = others[groups.of[others] != groups.of[row]]
        near = others[_apart(hashes[row], hashes[others]) <= distance]
        if near.size:
            alike = near[_correlation(greys[row], greys[near]) >= ALIKE]
            for other in alike.tolist():
                groups.join(int(row), other)
            if alike.size and groups.are_one(same):
                return


def _apart(one: np.uint64, others: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """The number of bits that differ from each of (N,), (N,)."""
    return np.bitwise_count(others ^ one)


def _correlation(one: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pearson correlation of (8, 9) with each of (N, 8, 9), (N,). None may be flat."""
    rows = np.concatenate([one[None], others]).reshape(-1, one.size).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[1:] @ rows[0]


def joined(size: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Groups of two or more of `size` indices, in order: pairs that share an index are one."""
    groups = _Groups(size)
    for one, other in pairs:
        groups.join(one, other)
    return members(groups.of.tolist())


def members(keys: Iterable[object]) -> list[list[int]]:
    """Groups of two or more indices with the same key, in order."""
    found: dict[object, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return [indices for indices in found.values() if len(indices) > 1]


class _Groups:
    """Disjoint sets; `of` is a number for each element, equal within a set."""

    def __init__(self, size: int) -> None:
        self.of = np.arange(size)
        self._members = {element: [element] for element in range(size)}

    def are_one(self, elements: NDArray[np.intp]) -> bool:
        """Whether all are in one set."""
        return bool((self.of[elements] == self.of[elements[0]]).all())

    def join(self, one: int, other: int) -> None:
        """Join two elements' sets. The smaller is renumbered: no element more than log2 N times."""
        large, small = int(self.of[one]), int(self.of[other])
        if large == small:
            return
        if len(self._members[large]) < len(self._members[small]):
            large, small = small, large
        moved = self._members.pop(small)
        self.of[moved] = large
        self._members[large] += moved
