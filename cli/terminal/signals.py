"""Ctrl-C, SIGTERM and SIGHUP: one sentence, exit code 130, 143 or 129, no traceback, no long wait.

The first signal raises `Interrupted` wherever the main thread is, so that files are closed and
temporary ones removed; it derives from BaseException, so that nothing handles it as an error. A
second one ends the process at once. So does the first where Python would only print an exception
and continue (in a finalizer, or while threads are joined at exit).
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR = "\x1b[?25h"

_caught: int | None = None


class Interrupted(BaseException):
    """A signal came; its notes (PEP 678) say how to continue."""


def listen_early() -> None:
    """End at once: for the time until the command is imported, when there is nothing to undo."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _early)


def _early(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):  # a terminal that is gone
        os.write(2, b"Interrupted.\n")
    os._exit(128 + number)


def listen() -> None:
    """Take over the signals, unless they are ignored (nohup, background jobs)."""
    global _caught
    _caught = None
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _first)
    sys.unraisablehook = _unraisable


def exit_code() -> int | None:
    """129, 130 or 143 once a signal has come."""
    return None if _caught is None else 128 + _caught


def _first(number: int, frame: FrameType | None) -> None:
    global _caught
    _caught = number
    for other in _SIGNALS:
        signal.signal(other, _second)
    raise Interrupted("Interrupted.")


def _second(number: int, frame: FrameType | None) -> None:
    leave(128 + number)


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    if isinstance(unraisable.exc_value, Interrupted):
        os.write(2, b"Interrupted.\n")
        leave(exit_code() or 1)
    sys.__unraisablehook__(unraisable)


def leave(code: int) -> NoReturn:
    """End the process at once."""
    if sys.__stderr__ is not None and sys.__stderr__.isatty():
        os.write(2, _SHOW_CURSOR.encode())  # a progress bar may have hidden it
    os._exit(code)


def leave_within(seconds: int) -> None:
    """End the process after that time at the latest, whatever it is waiting for."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


def heed() -> None:
    """End as after SIGTERM, which another process of the job received."""
    global _caught
    _caught = _caught or signal.SIGTERM


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Inside, the first signal raises nothing; the yielded function says whether it came."""

    def note(number: int, frame: FrameType | None) -> None:
        global _caught
        _caught = number
        for other in _SIGNALS:
            signal.signal(other, _second)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield lambda: _caught is not None
    finally:
        if _caught is None:
            for number, handler in before.items():
                signal.signal(number, handler)
