"""What lies where in an image: features in which a crop or a filtered copy stays like the original.

The pre-logits say which class an image shows, so unrelated images of a class are alike in them. In
the middle of a network tokens still describe their own patch. Averaged over a grid of CELLS x CELLS
parts of the image, and without what all images have in common, they tell images apart.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mixer_mlx.config import MixerConfig
from mixer_mlx.model import MlpMixer

from .embed import Features

CELLS = 4
WIDTH = 1024
"""Wider layouts are projected to so many numbers."""


@dataclass(frozen=True)
class WithLayout(Features):
    """For an `Embedder`: the pre-logits, and the layout after them, see `split`."""

    def shape(self, config: MixerConfig) -> tuple[int, ...]:
        """(C + layout,)."""
        return (config.hidden_dim + min(WIDTH, _cells(config.grid_size) * config.hidden_dim),)

    def __call__(self, model: MlpMixer, x: mx.array) -> mx.array:
        """Normalised images (N, H, W, in) -> float32 (N, C + layout)."""
        x = model.embed(x)
        middle = model.config.num_blocks // 2
        for block in model.blocks[: middle + 1]:
            x = block(x)
        layout = _pooled(x.astype(mx.float32), model.config.grid_size)
        for block in model.blocks[middle + 1 :]:
            x = block(x)
        return mx.concatenate([model.pool(x).astype(mx.float32), layout], axis=1)


class Split(NamedTuple):
    """Pre-logits (N, C) and layouts (N, D), float32."""

    pre_logits: NDArray[np.float32]
    layouts: NDArray[np.float32]


def split(features: NDArray[np.float32], config: MixerConfig) -> Split:
    """The parts of `WithLayout`'s features. The mean layout is taken off each."""
    C = config.hidden_dim
    layouts = features[:, C:]
    return Split(features[:, :C], layouts - layouts.mean(axis=0))


def _pooled(x: mx.array, grid: tuple[int, int]) -> mx.array:
    """Tokens (N, S, C) -> (N, D): means over the cells, projected if they are many numbers."""
    cells = (mx.array(_averages(grid)) @ x).reshape(len(x), -1)
    width = cells.shape[1]
    return cells @ mx.array(_projection(width)) if width > WIDTH else cells


def _cells(grid: tuple[int, int]) -> int:
    return min(CELLS, grid[0]) * min(CELLS, grid[1])


@functools.cache
def _averages(grid: tuple[int, int]) -> NDArray[np.float32]:
    """(cells, S): the matrix that averages tokens over each cell."""
    rows, columns = (np.arange(side) * min(CELLS, side) // side for side in grid)
    cell = (rows[:, None] * min(CELLS, grid[1]) + columns).ravel()
    member = (cell == np.arange(_cells(grid))[:, None]).astype(np.float32)
    return member / member.sum(axis=1, keepdims=True)


@functools.cache
def _projection(width: int) -> NDArray[np.float32]:
    """(width, WIDTH), random, the same each time: it keeps cosines within about 0.03."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((width, WIDTH), np.float32) / np.float32(np.sqrt(WIDTH))
