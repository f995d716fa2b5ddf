"""A worker: answers each line of JSON with one, and sleeps in between.

    {"do": "start", "case": {...}}   start the case's job, replacing the previous one
    {"do": "run", "times": 3}        run it 3 times -> seconds and CPU seconds per run
    {"do": "output", "path": ...}    write its output to an .npz file
    {"do": "facts"}                  other facts that the job reports
    {"do": "memory"}                 peak memory since `start`, in bytes

Every answer has `idle`: CPU seconds and seconds since the previous answer. Imports only
the standard library and NumPy, which all contenders have.
"""

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Case = dict[str, Any]
Reply = dict[str, Any]

QUIET_SHARE = 0.2
"""A worker answers once its threads use less than this fraction of a core, as some spin a while."""
QUIET_SECONDS = 2.0
"""Or after so long, spinning or not; the driver then sees it in `idle`."""
CHANNELS = 3


class Job(Protocol):
    """A contender's job for a case. `run` returns once the result has been computed."""

    def run(self) -> None:
        """Once."""

    def output(self) -> dict[str, np.ndarray]:
        """The output, to compare with the others."""

    def facts(self) -> dict[str, Any]:
        """Facts other than times."""


class Plain:
    """A job without output and facts."""

    def output(self) -> dict[str, np.ndarray]:
        return {}

    def facts(self) -> dict[str, Any]:
        return {}


def serve(versions: dict[str, str], jobs: dict[str, Callable[[Case], Job]]) -> None:
    """Answer until stdin ends. `jobs` maps a case's `job` to what makes it."""
    answers = _keep_stdout()
    _send(answers, {"versions": versions})
    job: Job | None = None
    cpu, clock = cpu_seconds(), time.perf_counter()
    for line in sys.stdin:
        order = json.loads(line)
        idle = {"cpu": cpu_seconds() - cpu, "seconds": time.perf_counter() - clock}
        try:
            if order["do"] == "start":
                job = None  # free its memory before the next one starts
                forget_peak_memory()
                job = jobs[order["case"]["job"]](order["case"])
                reply: Reply = {}
            else:
                reply = _obey(order, job)
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        settle()
        cpu, clock = cpu_seconds(), time.perf_counter()
        _send(answers, {**reply, "idle": idle})


def _obey(order: dict[str, Any], job: Job | None) -> Reply:
    if job is None:
        raise ValueError("no case was started")
    if order["do"] == "run":
        return timed(job.run, order["times"])
    if order["do"] == "output":
        np.savez(order["path"], **job.output())  # type: ignore[arg-type]
        return {}
    if order["do"] == "facts":
        return {"facts": job.facts()}
    return {"memory": peak_memory()}


def timed(run: Callable[[], None], times: int) -> Reply:
    """Seconds and CPU seconds of all threads and children, per run."""
    cpu, start = cpu_seconds(), time.perf_counter()
    for _ in range(times):
        run()
    return {
        "seconds": (time.perf_counter() - start) / times,
        "cpu": (cpu_seconds() - cpu) / times,
    }


def settle() -> None:
    """Wait until this process's threads sleep, as BLAS and OpenMP threads spin first."""
    end = time.perf_counter() + QUIET_SECONDS
    while time.perf_counter() < end:
        cpu, start = cpu_seconds(), time.perf_counter()
        time.sleep(0.02)
        if cpu_seconds() - cpu < QUIET_SHARE * (time.perf_counter() - start):
            return


def cpu_seconds() -> float:
    """User and system time of this process, on Linux with its living and ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    ticks = os.sysconf("SC_CLK_TCK")
    for child in _children():
        # proc(5): after the name, whose parentheses may hold spaces, the state is field 3.
        fields = _read(f"/proc/{child}/stat").rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / ticks if fields else 0.0
    return total


def forget_peak_memory() -> None:
    """Reset the peak to the memory held now, if the system supports it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory() -> int:
    """Bytes: peak resident set since `forget_peak_memory` (elsewhere than on Linux: since the
    start of the process), children's added up; pages that they share count for each."""
    peaks = [_peak(name) for name in ("self", *_children())]
    if any(peaks):
        return sum(peaks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _peak(process: str) -> int:
    for line in _read(f"/proc/{process}/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _children() -> list[str]:
    """Living child processes, on Linux only."""
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        return []
    return " ".join(_read(str(task / "children")) for task in tasks.iterdir()).split()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # it has ended
        return ""


def noise(case: Case) -> np.ndarray:
    """The same random pixels in all workers: uint8 (batch, H, W, 3)."""
    height, width = case["image_size"]
    shape = (case["batch"], height, width, CHANNELS)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def labels(case: Case) -> np.ndarray:
    """Classes of `noise`: int32 (batch,)."""
    return np.random.default_rng(1).integers(0, case["classes"], case["batch"], np.int32)


def _keep_stdout() -> Any:
    """The pipe to the driver; whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def _send(answers: Any, reply: Reply) -> None:
    answers.write(json.dumps(reply) + "\n")
    answers.flush()


def missing(error: ImportError) -> None:
    """Report to the driver that this contender isn't installed, and exit."""
    _send(_keep_stdout(), {"missing": str(error)})
    sys.exit(0)
