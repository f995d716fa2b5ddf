"""What a computation takes of MLX's memory, measured the same under any load."""

from collections.abc import Callable

import mlx.core as mx


def peak(work: Callable[[], object]) -> int:
    """Bytes of MLX's arrays at the peak of `work`, beyond those that existed before it.

    MLX frees an array when the stream has passed it, so an ordinary peak grows with how far the
    main thread runs ahead of the stream. Above its memory limit MLX waits for the stream instead.
    """
    limit = mx.set_memory_limit(0)
    try:
        mx.synchronize()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        work()
        mx.synchronize()
        return mx.get_peak_memory() - before
    finally:
        mx.set_memory_limit(limit)
