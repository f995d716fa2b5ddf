"""Check that contenders computed the same; otherwise their times mean nothing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from harness import BenchmarkError, Worker


def check(
    workers: Sequence[Worker],
    folder: Path,
    key: str,
    tolerance: float,
    *,
    first: int | None = None,
) -> dict[str, float]:
    """Largest difference between each contender's output and the first one's, as a fraction of the
    largest value there; of the `first` numbers only, if given.

    Raises BenchmarkError beyond the tolerance.
    """
    differences = {}
    expected: np.ndarray | None = None
    for worker in workers:
        with np.load(worker.output(folder)) as file:
            values = file[key][:first]
        if expected is None:
            expected = values
            continue
        if values.shape != expected.shape or not np.isfinite(values).all():
            raise BenchmarkError(f"{worker.name} computed {values.shape}, not {expected.shape}.")
        error = float(abs(values - expected).max() / abs(expected).max())
        if not error <= tolerance:
            raise BenchmarkError(
                f"{worker.name} differs from {workers[0].name} by {error:.2g} of the largest of "
                f"the {key}; at most {tolerance:g} is allowed."
            )
        differences[worker.name] = error
    return differences
