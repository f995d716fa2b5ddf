"""Which vectors point in nearly the same direction: exact cosine similarity, in blocks."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError

_BLOCK_NUMBERS = 2**22
"""Numbers in a block of vectors, and of similarities: 16 MiB each."""

Vectors = NDArray[np.floating]


class Nearest(NamedTuple):
    """Rows of the nearest vectors (Q, k), most similar first, and their cosines (Q, k)."""

    rows: NDArray[np.intp]
    similarities: NDArray[np.float32]


def unit(vectors: Vectors) -> NDArray[np.float32]:
    """Float32 vectors of length 1, (N, C); zeros stay zeros."""
    copy = np.array(vectors, np.float32)
    copy /= np.maximum(np.linalg.norm(copy, axis=1, keepdims=True), 1e-12)
    return copy


def nearest(vectors: Vectors, queries: Vectors, k: int) -> Nearest:
    """The k vectors of (N, C) nearest to each of (Q, C), all of them if there are fewer.

    Exact: all are compared, block by block, so `vectors` may be memory-mapped and larger than the
    memory. Ties go to the earlier row. Raises ConfigError for other shapes.
    """
    if vectors.ndim != 2 or queries.ndim != 2 or vectors.shape[1] != queries.shape[1]:
        raise ConfigError(
            f"Expected vectors (N, C) and queries (Q, C), not {vectors.shape} and {queries.shape}; "
            "pool features over tokens, and use one model for both."
        )
    wanted = unit(queries)
    best = Nearest(np.empty((len(queries), 0), np.intp), np.empty((len(queries), 0), np.float32))
    for start, block in _blocks(vectors, len(queries)):
        similarities = wanted @ block.T
        rows = np.broadcast_to(np.arange(start, start + len(block)), similarities.shape)
        best = _merged(best, _largest(rows, similarities, k), k)
    return best


def pairs(vectors: Vectors, least: float) -> Iterator[tuple[int, int, float]]:
    """Pairs of rows i < j whose cosine is at least `least`, with it; all pairs are compared."""
    size = max(1, min(1024, _BLOCK_NUMBERS // max(1, len(vectors))))
    units = unit(vectors)
    for start in range(0, len(units), size):
        similarities = units[start : start + size] @ units[start:].T
        for row, column in np.argwhere(np.triu(similarities >= least, 1)):
            yield start + int(row), start + int(column), float(similarities[row, column])


def _blocks(vectors: Vectors, queries: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    size = max(1, _BLOCK_NUMBERS // max(vectors.shape[1], queries, 1))
    for start in range(0, len(vectors), size):
        yield start, unit(vectors[start : start + size])


def _largest(rows: NDArray[np.intp], similarities: NDArray[np.float32], k: int) -> Nearest:
    """The k largest of each row, in no order."""
    if similarities.shape[1] <= k:
        return Nearest(rows, similarities)
    # Among equals, argpartition may choose any: those above the k-th are sure, then the first.
    kth = -np.partition(-similarities, k - 1, axis=1)[:, k - 1 : k]
    order = np.where(similarities > kth, 2, (similarities == kth).astype(np.int8))
    chosen = np.argsort(-order, axis=1, kind="stable")[:, :k]
    return Nearest(
        np.take_along_axis(rows, chosen, axis=1),
        np.take_along_axis(similarities, chosen, axis=1),
    )


def _merged(one: Nearest, other: Nearest, k: int) -> Nearest:
    rows = np.concatenate([one.rows, other.rows], axis=1)
    similarities = np.concatenate([one.similarities, other.similarities], axis=1)
    order = np.lexsort((rows, -similarities), axis=1)[:, :k]
    return Nearest(
        np.take_along_axis(rows, order, axis=1), np.take_along_axis(similarities, order, axis=1)
    )
