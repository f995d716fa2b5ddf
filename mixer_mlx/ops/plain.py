"""Switches for other forms of the operations, for the thread that sets them.

MLX can export the plain ones, and compile them for any batch size. Biases apart from matrix
products are faster on the CPU, where MLX copies a bias, number by number, to where the product is
added.
"""

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


@contextmanager
def biases_apart(apart: bool = True) -> Iterator[None]:
    """Within it, biases are added after matrix products.

    Not for what is compiled: there the sum becomes part of a kernel that repeats a number along an
    axis, and those don't use vectors. Such operations have MLX's own derivatives.
    """
    before = getattr(_local, "apart", False)
    _local.apart = apart
    try:
        yield
    finally:
        _local.apart = before


def apart_from_products() -> bool:
    """Whether this thread's biases are."""
    return plain() or getattr(_local, "apart", False)
