"""The features of a dataset's images: computed, or from a file of vectors."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.data.dataset import Dataset, Entry
from mixer_mlx.errors import ConfigError, ImageError

from .embed import Embedder
from .store import Vectors


@dataclass(frozen=True)
class Labelled:
    """Features of a dataset's readable images: float32 (N, C), and their labels and indices."""

    dataset: Dataset
    features: NDArray[np.float32]
    indices: NDArray[np.intp]

    @property
    def labels(self) -> NDArray[np.int32]:
        """The class of each row, (N,)."""
        return self.dataset.labels[self.indices]


def embedded(
    dataset: Dataset,
    embedder: Embedder,
    *,
    batch_size: int = 32,
    on_unreadable: Callable[[Entry, ImageError], None] = lambda entry, error: None,
    tick: Callable[[int, int], None] = lambda done, failed: None,
) -> Labelled:
    """Compute the features; `tick` gets the numbers of images done and failed."""
    shape = embedder.features.shape(embedder.info.config)
    features = np.empty((len(dataset), *shape), np.float32)
    good: list[int] = []
    stream = embedder.stream(dataset.paths, batch_size=batch_size)
    for index, (_, vector, error) in enumerate(stream):
        if error is not None:
            on_unreadable(dataset.paths[index], error)
        else:
            features[len(good)] = vector
            good.append(index)
        tick(index + 1, index + 1 - len(good))
    return Labelled(dataset, features[: len(good)], np.array(good, np.intp))


def looked_up(dataset: Dataset, vectors: Vectors, file: Path) -> Labelled:
    """Take the features from a file, by the images' names.

    Raises ConfigError if `file` lacks one of them, or has vectors per token.
    """
    if vectors.array.ndim != 2:
        raise ConfigError(f"{file} has vectors for each token; make it with `pool='mean'`.")
    rows = {name: row for row, name in enumerate(vectors.names)}
    missing = [str(path) for path in dataset.paths if str(path) not in rows]
    if missing:  # from another folder, or by another way
        rows = {os.path.realpath(name): row for row, name in enumerate(vectors.names)}
        missing = [str(path) for path in dataset.paths if os.path.realpath(str(path)) not in rows]
        names = [os.path.realpath(str(path)) for path in dataset.paths]
    else:
        names = [str(path) for path in dataset.paths]
    if missing:
        raise ConfigError(
            f"{file} lacks {len(missing):,} of {len(dataset):,} images, e.g. {missing[0]}; embed "
            "the whole dataset, and run the command in the same folder."
        )
    found = vectors.array[[rows[name] for name in names]].astype(np.float32)
    return Labelled(dataset, found, np.arange(len(dataset)))
