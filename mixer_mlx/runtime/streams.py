"""On the CPU, a batch is computed in parts, on several streams at once.

MLX's CPU backend runs a stream's operations one after the other, and all but matrix products on one
core. With a part of the batch on each of several streams, all cores are busy, and each matrix
product has one core. Small parts also need little memory: the kernel hands out large arrays page by
page.
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
from .machine import cores
from .tuning import MATMUL_COST, MAX_PART, MAX_STREAMS

Part: TypeAlias = tuple[int, int]
"""(start, end) of a part's examples in the batch."""

_local = threading.local()  # MLX's streams belong to the thread that made them


def rounds(config: MixerConfig, size: int, max_part: int = MAX_PART) -> list[list[Part]]:
    """How to divide a batch: rounds, one after the other, of parts that are computed at once.

    A part has at most `max_part` numbers in its widest layer, or one example. A GPU gets the whole
    batch as one part.
    """
    if mx.default_device().type == mx.DeviceType.gpu or sys.platform != "linux":
        return [[(0, size)]]
    n = _processors()
    count = min(n, MAX_STREAMS, size)
    if (MATMUL_COST + 1) / count > MATMUL_COST / n + 1:
        count = 1  # faster: a product on all cores, and the rest on one
    widest = max(outputs * vectors for _, outputs, vectors in config.linear_maps)
    turns = -(-size // (count * max(1, max_part // widest)))
    length = -(-size // (count * turns))
    parts = [(start, min(start + length, size)) for start in range(0, size, length)]
    return [parts[i : i + count] for i in range(0, len(parts), count)]


def streams(count: int) -> list[mx.Stream]:
    """`count` streams of the default device; for one, its default stream."""
    if count == 1:
        return [mx.default_stream(mx.default_device())]
    known: list[mx.Stream] = _local.__dict__.setdefault("streams", [])
    while len(known) < count:
        known.append(mx.new_stream(mx.cpu))
    return known[:count]


class _ThreadLimit:
    """Limits MLX's matrix products to one thread while any caller needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: int | None = None

    def acquire(self) -> None:
        with self._lock:
            if not self._users:
                self._before = openblas.set_threads(1)
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._before is not None:
                openblas.set_threads(self._before)


_THREAD_LIMIT = _ThreadLimit()


@contextmanager
def one_core_each(count: int) -> Iterator[None]:
    """While several parts are computed at once, each matrix product uses one core.

    (OpenBLAS runs only one multi-threaded product at a time.) What is started in the block must be
    evaluated before it ends. A `count` of 1 changes nothing.
    """
    if count == 1:
        yield
        return
    _THREAD_LIMIT.acquire()
    try:
        yield
    finally:
        _THREAD_LIMIT.release()


def _processors() -> int:
    """The number of cores to use."""
    limit = os.environ.get("OPENBLAS_NUM_THREADS", "")
    return int(limit) if limit.isdigit() and int(limit) else cores()
