"""On the CPU a batch is computed in parts, on several streams at once.

MLX's CPU computes all but matrix products on one core, and the operations of a stream one after
the other. With a part of the batch on each of several streams all cores are busy all the time,
while each matrix product has a core to itself. Small parts also need little memory: large arrays
come from the kernel page by page.
"""

import os
import sys
import threading
from typing import TypeAlias

import mlx.core as mx

from mixer_mlx import blas
from mixer_mlx.config import MixerConfig
from mixer_mlx.threads import cores

Part: TypeAlias = tuple[int, int]
"""Where the examples of a part begin and end in the batch."""

MOST_STREAMS = 8
"""MLX's CPU takes some ten operations at a time from all streams together."""
MOST_NUMBERS = 2**21
"""In the widest layer of a part: 8 MiB in float32. With larger ones a forward pass was slower."""

_mine = threading.local()  # MLX's streams belong to the thread that made them
_threads: int | None = None  # of each matrix product


def rounds(config: MixerConfig, size: int) -> list[list[Part]]:
    """How to compute a batch: the parts of a round at once, one round after the other.

    A GPU computes the whole at once.
    """
    if mx.default_device().type == mx.DeviceType.gpu or sys.platform != "linux":
        return [[(0, size)]]
    count = min(_processors(), MOST_STREAMS, size)
    S, C = config.num_tokens, config.hidden_dim
    widest = max(S * config.channels_mlp_dim, config.tokens_mlp_dim * C, S * C)
    turns = -(-size // (count * max(1, MOST_NUMBERS // widest)))
    length = -(-size // (count * turns))
    parts = [(start, min(start + length, size)) for start in range(0, size, length)]
    return [parts[i : i + count] for i in range(0, len(parts), count)]


def streams(count: int) -> list[mx.Stream]:
    """As many streams of the default device as a round has parts; from now on they share the cores.

    One is the default stream.
    """
    global _threads
    threads = max(1, _processors() // count)
    if threads != _threads:
        blas.use_threads(threads)
        _threads = threads
    if count == 1:
        return [mx.default_stream(mx.default_device())]
    known: list[mx.Stream] = _mine.__dict__.setdefault("streams", [])
    while len(known) < count:
        known.append(mx.new_stream(mx.cpu))
    return known[:count]


def _processors() -> int:
    """The cores that this process is to compute with."""
    told = os.environ.get("OPENBLAS_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else cores()
