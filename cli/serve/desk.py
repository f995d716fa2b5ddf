"""The one thread in which all requests compute, one after the other, and the queue before it.

MLX aborts a process in which a thread has computed and ended (see `runtime.worker`), so this thread
never ends. It also keeps the teaching session, which isn't safe for threads, to one at a time.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Full, Queue
from typing import ParamSpec, TypeVar

Output = TypeVar("Output")
P = ParamSpec("P")

WAITING = 16


class BusyError(Exception):
    """Too many requests wait already."""


class Desk:
    """Calls functions for others; at most `waiting` of them queue."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._jobs: Queue[Callable[[], None]] = Queue(waiting)
        threading.Thread(target=self._work, name="desk", daemon=True).start()

    async def run(self, function: Callable[P, Output], *args: P.args, **kwargs: P.kwargs) -> Output:
        """What the function returns or raises. Raises BusyError at once if the queue is full."""
        future: Future[Output] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        try:
            self._jobs.put_nowait(job)
        except Full:
            raise BusyError("Too many requests are waiting; try again in a moment.") from None
        return await asyncio.wrap_future(future)

    def close(self, seconds: float = 5) -> None:
        """Wait for what is queued, but not for ever."""
        waiting = threading.Thread(target=self._jobs.join, daemon=True)
        waiting.start()
        waiting.join(seconds)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            finally:
                self._jobs.task_done()
