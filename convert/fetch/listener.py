"""What follows a fetch: messages for the user, and how many bytes are here."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Listener:
    """Functions to call during a fetch; those that are left out do nothing.

    `message` takes a sentence for the user, such as what is about to be fetched. `progress` takes
    the bytes that have arrived, and those expected (None: the server doesn't say).
    """

    message: Callable[[str], object] = lambda _: None
    progress: Callable[[int, int | None], object] = lambda *_: None


SILENT = Listener()
