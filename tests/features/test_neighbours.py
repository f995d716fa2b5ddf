"""Exact neighbours, against all similarities in float64."""

from pathlib import Path

import numpy as np
import pytest

from mixer_mlx.errors import ConfigError
from mixer_mlx.features import neighbours
from mixer_mlx.features.neighbours import nearest, pairs


def cosines(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    one, other = vectors.astype(np.float64), queries.astype(np.float64)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    return other @ one.T


@pytest.mark.parametrize("numbers", [2**8, 2**12, 2**22])
@pytest.mark.parametrize("k", [1, 7, 200, 500])
def test_as_sorting_all(numbers: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK_NUMBERS", numbers)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 16)).astype(np.float16)
    queries = rng.normal(size=(5, 16)).astype(np.float32)
    found, expected = nearest(vectors, queries, k), cosines(vectors, queries)
    order = np.argsort(-expected, axis=1)[:, :k]
    assert np.array_equal(found.rows, order)
    assert abs(found.similarities - np.take_along_axis(expected, order, 1)).max() < 1e-6


def test_ties_go_to_the_earlier_row(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.tile(np.eye(4, dtype=np.float32)[0], (50, 1))
    for numbers in (16, 64, 2**22):
        monkeypatch.setattr(neighbours, "_BLOCK_NUMBERS", numbers)
        assert nearest(vectors, vectors[:1], 3).rows.tolist() == [[0, 1, 2]]


def test_zeros_are_like_nothing() -> None:
    vectors = np.array([[0, 0], [1, 0]], np.float32)
    assert nearest(vectors, vectors, 2).similarities.tolist() == [[0, 0], [1, 0]]


def test_other_shapes_are_refused() -> None:
    for vectors, queries in (((3, 4), (2, 5)), ((3, 4, 4), (2, 4)), ((3, 4), (4,))):
        with pytest.raises(ConfigError):
            nearest(np.zeros(vectors, np.float32), np.zeros(queries, np.float32), 1)


def test_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    every = cosines(vectors, vectors)
    expected = {(i, j) for i in range(60) for j in range(i + 1, 60) if every[i, j] >= 0.9}
    assert len(expected) > 20
    for numbers in (60, 1000, 2**22):
        monkeypatch.setattr(neighbours, "_BLOCK_NUMBERS", numbers)
        found = list(pairs(vectors, 0.9))
        assert {(i, j) for i, j, _ in found} == expected
        assert len(found) == len(expected)
        assert all(abs(value - every[i, j]) < 1e-6 for i, j, value in found)


def test_a_memory_mapped_file(tmp_path: Path) -> None:
    vectors = np.random.default_rng(2).normal(size=(100, 8)).astype(np.float16)
    np.save(tmp_path / "a.npy", vectors)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert np.array_equal(
        nearest(mapped, vectors[:3], 4).rows, nearest(vectors, vectors[:3], 4).rows
    )
