"""One thread that computes for all others, for as long as the process lives.

Two rules of MLX make it necessary. An array that isn't computed yet can be computed only by the
thread that made it; and when a thread whose streams have computed something ends before the
process, MLX aborts the process at its exit ("terminate called without an active exception"). The
threads of a pool or of a server end, so they must not compute anything.
"""

import atexit
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

from mixer_mlx.errors import BackendError

Output = TypeVar("Output")
P = ParamSpec("P")

busy = threading.RLock()
"""Held during each job. While MLX traces a compiled function, its model's weights are placeholders,
so nothing else may read them."""

_jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
_lock = threading.Lock()
_thread: threading.Thread | None = None
_forked = False


def submit(function: Callable[P, Output], *args: P.args, **kwargs: P.kwargs) -> Future[Output]:
    """Have the worker call a function, which mustn't wait for another job.

    Jobs run one after the other. Raises BackendError in a process that was forked after the worker
    had started.
    """
    check_process()
    future: Future[Output] = Future()

    def job() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            with busy:
                found = function(*args, **kwargs)
            future.set_result(found)
        except BaseException as error:
            future.set_exception(error)

    _start()
    _jobs.put(job)
    return future


def run(function: Callable[P, Output], *args: P.args, **kwargs: P.kwargs) -> Output:
    """Have the worker call a function, and wait for what it returns."""
    if threading.current_thread() is _thread:
        return function(*args, **kwargs)
    return submit(function, *args, **kwargs).result()


def outlives_threads(function: Callable[P, Output]) -> Callable[P, Output]:
    """Make a function run on the worker, unless the main thread calls it, which doesn't end."""

    @functools.wraps(function)
    def safe(*args: P.args, **kwargs: P.kwargs) -> Output:
        if threading.current_thread() is threading.main_thread():
            check_process()
            return function(*args, **kwargs)
        return run(function, *args, **kwargs)

    return safe


def check_process() -> None:
    """Raise BackendError in a process that was forked from one that had used MLX here.

    MLX's threads don't exist in it, and any computation would wait for them for ever.
    """
    if _forked:
        raise BackendError(
            "This process was forked from one that had already computed with MLX, whose threads "
            'don\'t survive a fork; start it by multiprocessing.get_context("spawn").'
        )
    _watch_forks()


@functools.cache
def _watch_forks() -> None:
    def mark() -> None:
        global _forked
        _forked = True

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=mark)


def _start() -> None:
    global _thread
    with _lock:
        if _thread is None:
            _thread = threading.Thread(target=_work, name="mixer_mlx", daemon=True)
            _thread.start()
            atexit.register(_finish)


def _work() -> None:
    while True:
        _jobs.get()()


def _finish() -> None:
    """Let the job in progress end before the interpreter does."""
    if not _forked:
        while not _jobs.empty():
            _jobs.get_nowait()
        run(int)
