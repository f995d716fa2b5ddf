"""`map` in threads, in order."""

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Output = TypeVar("Output")


def cores() -> int:
    """How many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_workers: int | None = None


def use_workers(count: int | None) -> None:
    """Set the number of threads that decode images; None: one per core."""
    global _workers
    _workers = count


def workers() -> int:
    """The number of threads that decode images."""
    return _workers or cores()


def in_threads(
    function: Callable[[Item], Output], items: Iterable[Item], ahead: int
) -> Generator[Output, None, None]:
    """`map` in threads, in order, at most `ahead` items early; closing it cancels the rest."""
    waiting: deque[Future[Output]] = deque()
    pool = ThreadPoolExecutor(workers(), thread_name_prefix="decode")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
