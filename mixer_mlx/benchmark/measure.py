"""Time jobs, and relate their speed to this machine's ceiling.

The ceiling is the rate of a large matrix product in the same dtype, measured along with the jobs.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mixer_mlx.errors import BackendError

MIN_REPEATS = 3
_MAX_REPEATS = 1000

# The smallest product that takes this long uses the whole machine; the largest takes 0.8 GB.
_CEILING_SECONDS = 0.02
_CEILING_SIDES = (512, 1024, 2048, 4096, 8192)

OnProgress = Callable[[int, int], None]
"""Called with the number of runs done and the total."""


@dataclass(frozen=True)
class Job:
    """Something to measure. `run` computes one batch and waits for the device.

    `flops` are per run; `own_bytes` is what the job keeps in memory between runs.
    """

    dtype: str
    batch_size: int
    flops: int
    run: Callable[[], None]
    own_bytes: int = 0


@dataclass(frozen=True)
class Measurement:
    """The results of one job.

    `seconds` is the median time of a batch, `seconds_q1` and `seconds_q3` are quartiles; rates come
    from the median. `peak_memory` is in bytes, as if the job ran alone, with weights. `share` is
    the fraction of the ceiling; it can slightly exceed 1 if the clock speed varies.
    """

    dtype: str
    batch_size: int
    repeats: int
    images_per_second: float
    seconds: float
    seconds_q1: float
    seconds_q3: float
    peak_memory: int
    flops_per_second: float
    share: float


@dataclass(frozen=True)
class Ceiling:
    """The median rate of a product of two `side` x `side` matrices."""

    dtype: str
    side: int
    repeats: int
    flops_per_second: float


@dataclass(frozen=True)
class Measured:
    """Results in the order of the jobs, and one ceiling for each dtype."""

    results: tuple[Measurement, ...]
    ceilings: tuple[Ceiling, ...]


@dataclass(frozen=True)
class _Timing:
    seconds: list[float]
    peak_memory: int

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))


def measure(
    jobs: Sequence[Job],
    device: mx.Device | None = None,
    *,
    seconds: float = 10,
    repeats: int | None = None,
    progress: OnProgress = lambda *_: None,
) -> Measured:
    """Run the jobs, and a large matrix product for each dtype, in turn.

    Each runs twice to warm up, then `repeats` times; None: as often as fits its slice of `seconds`,
    at least 3 times. The runs of a job are spread evenly over the whole time, so that a temporary
    slowdown affects all jobs alike. Raises BackendError if MLX fails.
    """
    with mx.stream(device or mx.default_device()):
        sides = {dtype: _ceiling_side(dtype) for dtype in dict.fromkeys(j.dtype for j in jobs)}
        products = [_product(dtype, side) for dtype, side in sides.items()]
        timings = _time([*jobs, *products], seconds, repeats, progress)
    ceilings = tuple(
        Ceiling(job.dtype, sides[job.dtype], len(timing.seconds), job.flops / timing.median)
        for job, timing in zip(products, timings[len(jobs) :], strict=True)
    )
    rates = {ceiling.dtype: ceiling.flops_per_second for ceiling in ceilings}
    results = (_result(job, timing, rates[job.dtype]) for job, timing in zip(jobs, timings))  # noqa: B905  # the rest are the products
    return Measured(tuple(results), ceilings)


def _result(job: Job, timing: _Timing, ceiling: float) -> Measurement:
    first, third = np.quantile(timing.seconds, [0.25, 0.75])
    rate = job.flops / timing.median
    return Measurement(
        dtype=job.dtype,
        batch_size=job.batch_size,
        repeats=len(timing.seconds),
        images_per_second=job.batch_size / timing.median,
        seconds=timing.median,
        seconds_q1=float(first),
        seconds_q3=float(third),
        peak_memory=timing.peak_memory,
        flops_per_second=rate,
        share=rate / ceiling,
    )


def _time(
    jobs: Sequence[Job], seconds: float, repeats: int | None, progress: OnProgress
) -> list[_Timing]:
    warm = [_warm_up(job) for job in jobs]
    budget = seconds / len(jobs)
    counts = [
        repeats or max(MIN_REPEATS, int(min(_MAX_REPEATS, budget / once))) for once, _ in warm
    ]
    timings = [_Timing([], peak) for _, peak in warm]
    order = in_turn(counts)
    planned = sum(n * once for n, (once, _) in zip(counts, warm, strict=True))
    end = math.inf if repeats else time.perf_counter() + planned
    for done, number in enumerate(order):
        progress(done, len(order))
        times = timings[number].seconds
        # If the machine has slowed down, cut the plan short.
        if time.perf_counter() < end or len(times) < MIN_REPEATS:
            times.append(_seconds(jobs[number]))
    progress(len(order), len(order))
    return timings


def in_turn(counts: Sequence[int]) -> list[int]:
    """Each index as many times as its count, evenly spread: [2, 4] -> [1, 0, 1, 1, 0, 1]."""
    moments = [((i + 0.5) / n, number) for number, n in enumerate(counts) for i in range(n)]
    return [number for _, number in sorted(moments)]


def _warm_up(job: Job) -> tuple[float, int]:
    """Seconds and peak memory of a job's second run, as MLX may compile in the first."""
    try:
        job.run()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        seconds = _seconds(job)
    except (MemoryError, RuntimeError) as error:
        raise BackendError(
            f"A batch of {job.batch_size} in {job.dtype} can't be computed ({error}); choose "
            "smaller batches (`batch_sizes`)."
        ) from error
    return seconds, mx.get_peak_memory() - before + job.own_bytes


def _seconds(job: Job) -> float:
    start = time.perf_counter()
    job.run()
    return time.perf_counter() - start


def _product(dtype: str, side: int) -> Job:
    one, other = (mx.random.normal((side, side)).astype(getattr(mx, dtype)) for _ in range(2))
    mx.eval(one, other)

    def run() -> None:
        mx.eval(one @ other)

    return Job(dtype, 1, 2 * side**3, run)


def _ceiling_side(dtype: str) -> int:
    for side in _CEILING_SIDES:
        if _warm_up(_product(dtype, side))[0] >= _CEILING_SECONDS:
            break
    return side
