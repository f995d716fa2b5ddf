"""Fingerprints that find identical images and images that look alike.

Likeness is measured by the difference hash (dHash) of Neal Krawetz, "Kind of Like That",
hackerfactor.com, 2013: re-saving, shrinking or brightening an image changes few of its 64 bits;
mirroring or rotating it changes many. Images with little detail may have the same bits by chance,
so the grey values behind the bits must correlate too.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NEAR = 4
"""Hashes that differ in at most this many bits may belong to the same image."""

ALIKE = 0.8
"""And their grey values must correlate at least this much. Of CIFAR-10's 60,000 images, 353 pairs
differ in 4 bits or fewer. Seven of them correlate less and show different things; the next 53 look
alike, though a few may show the same scene twice."""

FLAT = 8
"""If an image's grey values span less than this (of 255), its hash is noise."""

_BAND_PIXELS = 2**20


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


def groups_alike(greys: NDArray[np.uint8], distance: int) -> list[list[int]]:
    """Groups of indices of images that look alike, from `reduced`, (N, 8, 9).

    Two images look alike if their hashes differ in at most `distance` bits and their grey values
    correlate by at least ALIKE; groups that share an image are one. A group has two or more, in
    order. All pairs are compared, so the time grows with the square of N.
    """
    hashes = dhashes(greys)
    groups = _Groups(len(hashes))
    for row in range(len(hashes)):
        apart = np.bitwise_count(hashes[row + 1 :] ^ hashes[row])
        near = row + 1 + np.flatnonzero(apart <= distance)
        if near.size:
            for other in near[_correlation(greys[row], greys[near]) >= ALIKE]:
                groups.join(row, int(other))
    return members(groups.root(number) for number in range(len(hashes)))


def _correlation(one: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pearson correlation of (8, 9) with each of (N, 8, 9), (N,). None may be flat."""
    rows = np.concatenate([one[None], others]).reshape(-1, one.size).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[1:] @ rows[0]


def members(keys: Iterable[object]) -> list[list[int]]:
    """Groups of two or more indices with the same key, in order."""
    found: dict[object, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return [indices for indices in found.values() if len(indices) > 1]


class _Groups:
    """Disjoint sets (Galler and Fischer, 1964); `root` identifies an element's set."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, element: int) -> int:
        while (parent := self._parent[element]) != element:
            self._parent[element] = element = self._parent[parent]
        return element

    def join(self, one: int, other: int) -> None:
        one, other = self.root(one), self.root(other)
        self._parent[max(one, other)] = min(one, other)
