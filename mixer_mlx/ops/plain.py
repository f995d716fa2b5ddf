"""A switch for the operations' plain forms, which MLX can export and compile for any batch size."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_local = threading.local()


@contextmanager
def plain_operations() -> Iterator[None]:
    """Within it, this thread's operations have no derivatives of their own."""
    before = plain()
    _local.plain = True
    try:
        yield
    finally:
        _local.plain = before


def plain() -> bool:
    """Whether this thread's operations are plain."""
    return getattr(_local, "plain", False)
