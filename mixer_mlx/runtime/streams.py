"""On the CPU a batch is computed in parts, on several streams at once.

MLX's CPU computes all but matrix products on one core, and the operations of a stream one after
the other. With a part of the batch on each of several streams all cores are busy all the time,
while each matrix product has a core to itself. Small parts also need little memory: large arrays
come from the kernel page by page.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import mlx.core as mx

from mixer_mlx.config import MixerConfig

from . import openblas
from .threads import cores
from .tuning import MATMUL_COST, MAX_PART, MAX_STREAMS

Part: TypeAlias = tuple[int, int]
"""Where the examples of a part begin and end in the batch."""

_mine = threading.local()  # MLX's streams belong to the thread that made them


def rounds(config: MixerConfig, size: int, max_part: int = MAX_PART) -> list[list[Part]]:
    """How to compute a batch: the parts of a round at once, one round after the other.

    A part has at most `max_part` numbers in its widest layer, or one example. A GPU computes the
    whole at once.
    """
    if mx.default_device().type == mx.DeviceType.gpu or sys.platform != "linux":
        return [[(0, size)]]
    n = _processors()
    count = min(n, MAX_STREAMS, size)
    if (MATMUL_COST + 1) / count > MATMUL_COST / n + 1:
        count = 1  # faster: a product on all cores, and the rest on one
    S, C = config.num_tokens, config.hidden_dim
    widest = max(S * config.channels_mlp_dim, config.tokens_mlp_dim * C, S * C)
    turns = -(-size // (count * max(1, max_part // widest)))
    length = -(-size // (count * turns))
    parts = [(start, min(start + length, size)) for start in range(0, size, length)]
    return [parts[i : i + count] for i in range(0, len(parts), count)]


def streams(count: int) -> list[mx.Stream]:
    """As many streams of the default device as a round has parts; one is the default stream."""
    if count == 1:
        return [mx.default_stream(mx.default_device())]
    known: list[mx.Stream] = _mine.__dict__.setdefault("streams", [])
    while len(known) < count:
        known.append(mx.new_stream(mx.cpu))
    return known[:count]


class _Products:
    """How many cores each of MLX's matrix products takes: one, while anybody needs that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: int | None = None

    def narrow(self) -> None:
        with self._lock:
            if not self._users:
                self._before = openblas.set_threads(1)
            self._users += 1

    def widen(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._before is not None:
                openblas.set_threads(self._before)


_PRODUCTS = _Products()


@contextmanager
def one_core_each(count: int) -> Iterator[None]:
    """While `count` parts, if they are several, are computed at once, a product takes one core.

    (Of products that take more than one, OpenBLAS lets all but the first wait.) What was begun
    inside must be computed before the end: from then on a product takes as many cores as before.
    """
    if count == 1:
        yield
        return
    _PRODUCTS.narrow()
    try:
        yield
    finally:
        _PRODUCTS.widen()


def _processors() -> int:
    """The cores that this process is to compute with."""
    told = os.environ.get("OPENBLAS_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else cores()
