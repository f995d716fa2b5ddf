"""Linux's `perf`: which functions a process spends its processor time in."""

import contextlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from harness import BenchmarkError

FREQUENCY = 499
"""Samples in a second of processor time; not a round number, to keep step with no timer."""
START_SECONDS = 1.0
"""What perf has to attach itself, before there is anything to sample."""
NOT_ALLOWED = (
    "perf may not sample processes and the kernel here; run this as root, or set "
    "kernel.perf_event_paranoid to 1 or less."
)
_REPORT = ["--stdio", "--no-children", "-g", "none", "-F", "sample,dso,symbol", "-t", ";"]


class Function(NamedTuple):
    """Its samples; the library or program it is in; its name, after [k] or [.]: in the kernel or
    not."""

    samples: int
    library: str
    name: str


def find() -> str:
    """The path of perf. Raises BenchmarkError if there is none."""
    if sys.platform != "linux":
        raise BenchmarkError("perf exists on Linux only.")
    path = shutil.which("perf")
    if path is None:
        raise BenchmarkError("perf isn't installed; it is in Debian's package linux-perf.")
    return path


def version(perf: str) -> str:
    return _said_by([perf, "--version"]).removeprefix("perf version ").strip()


@contextlib.contextmanager
def recording(perf: str, pid: int, data: Path) -> Iterator[None]:
    """Within it, all threads of a process are sampled into the file `data`.

    Raises BenchmarkError if that isn't allowed.
    """
    command = [perf, "record", "-e", "cpu-clock", "-F", str(FREQUENCY), "-p", str(pid)]
    null = subprocess.DEVNULL
    process = subprocess.Popen([*command, "-o", str(data)], stdout=null, stderr=null)  # noqa: S603
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(START_SECONDS)
            raise BenchmarkError(NOT_ALLOWED)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def functions(perf: str, data: Path) -> list[Function]:
    """The functions in a recording."""
    return read(_said_by([perf, "report", "-i", str(data), *_REPORT]))


def read(report: str) -> list[Function]:
    """The functions in the output of `perf report`.

    Raises BenchmarkError if the kernel wasn't sampled, or nothing was.
    """
    if re.search(r"^# Samples: .*:u'$", report, re.MULTILINE):
        raise BenchmarkError(NOT_ALLOWED)
    lines = [line for line in report.splitlines() if line.strip() and line[0] != "#"]
    if not lines:
        raise BenchmarkError("perf took no samples.")
    rows = ([cell.strip() for cell in line.split(";", 2)] for line in lines)
    return [Function(int(samples), library, name) for samples, library, name in rows]


def _said_by(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} failed.\n{done.stderr}")
    return done.stdout
