"""`map` in threads, in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread, current_thread
from typing import TypeVar

from .machine import cores

Item = TypeVar("Item")
Output = TypeVar("Output")


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
    """`map` in threads, in order, at most `ahead` items early; closing it cancels the rest.

    Raises MemoryError if a thread ended before its work did.
    """
    waiting: deque[Future[Output]] = deque()
    threads: list[Thread] = []
    pool = ThreadPoolExecutor(
        workers(), "decode", initializer=lambda: threads.append(current_thread())
    )
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield _result(waiting.popleft(), threads)
        while waiting:
            yield _result(waiting.popleft(), threads)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_PATIENCE = 1.0
"""Seconds between looks at the threads."""


def _result(future: Future[Output], threads: list[Thread]) -> Output:
    """Its result; without memory, a thread may end and leave its work undone for ever."""
    while True:
        try:
            return future.result(timeout=_PATIENCE)
        except TimeoutError:
            if future.done():  # it is the function's own
                return future.result()
            if not all(thread.is_alive() for thread in threads):
                raise MemoryError("a thread failed") from None
