"""The driver: runs contenders in turn, and reports medians, ratios and JSON.

Each contender has its own process, because their threads would compete in a shared one. A worker
(see serve.py) stays alive and sleeps while another runs; a command starts afresh each time. In each
round every contender runs once, and the order rotates by one from round to round. A ratio is the
median over the rounds of (contender's seconds / mixer-mlx's seconds in the same round), so that a
temporary slowdown affects both.
"""

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

HERE = Path(__file__).parent
OURS = "mixer-mlx"
MAX_IDLE = 0.05
"""Warn of a waiting worker that takes more of a core than this, as it disturbs the others."""

Row = dict[str, Any]


class BenchmarkError(Exception):
    """A benchmark can't continue; the message is one sentence."""


class NotInstalledError(BenchmarkError):
    """A contender's libraries are missing in its python."""


class Contender(Protocol):
    """A participant in a comparison."""

    name: str

    def run(self, times: int) -> Row:
        """Seconds, CPU seconds (`cpu`) of one run of `times`; perhaps `memory`, in bytes."""


def environment(threads: int) -> dict[str, str]:
    """The environment of a contender: `threads` for every library, and true float32 on GPUs too
    (PyTorch's setting for that is in its worker)."""
    names = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR")
    count = {f"{name}_NUM_THREADS": str(threads) for name in names}
    # NPROC is XLA's.
    full = {"MLX_ENABLE_TF32": "0", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    return {**os.environ, **count, **full, "NPROC": str(threads)}


@contextlib.contextmanager
def on_cores(threads: int) -> Iterator[None]:
    """Limit processes started inside to `threads` cores, if the system supports it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Worker:
    """A worker process: `python script [arguments]`, which must call `serve.serve`.

    Raises NotInstalledError if a library is missing.
    """

    def __init__(
        self, name: str, python: str, script: str, threads: int, arguments: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.waited = self.burned = 0.0
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # until close
        command = [python, str(HERE / script), *arguments]
        try:
            with on_cores(threads):
                self._process = subprocess.Popen(  # noqa: S603
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._log,
                    text=True,
                    env=environment(threads),
                )
        except OSError as error:
            self._log.close()
            raise BenchmarkError(f"{python} can't be run ({error.strerror}).") from error
        try:
            hello = self._read()
            if "missing" in hello:
                raise NotInstalledError(hello["missing"])
        except BaseException:
            self.close()
            raise
        self.versions: dict[str, str] = hello["versions"]

    def ask(self, **order: Any) -> Row:
        """Give an order and wait for the answer. Raises BenchmarkError if it fails."""
        assert self._process.stdin is not None  # noqa: S101  # a pipe
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise BenchmarkError(f"{self.name} ended.{self._last_words()}") from error
        answer = self._read()
        if "error" in answer:
            raise BenchmarkError(f"{self.name}: {answer['error']}{self._last_words()}")
        idle = answer.pop("idle")
        self.waited += idle["seconds"]
        self.burned += idle["cpu"]
        return answer

    def start(self, case: Row) -> None:
        self.ask(do="start", case=case)

    def run(self, times: int) -> Row:
        return self.ask(do="run", times=times)

    @property
    def pid(self) -> int:
        return self._process.pid

    def output(self, folder: Path) -> Path:
        """An .npz file with what the case computed."""
        path = folder / f"{self.name.replace(' ', '-')}.npz"
        self.ask(do="output", path=str(path))
        return path

    @property
    def idle_fraction(self) -> float:
        """Fraction of a core used while it should have slept, over at least a second, since its
        first and last answers cost a few milliseconds."""
        return self.burned / max(self.waited, 1.0)

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout  # noqa: S101, PT018  # pipes
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _read(self) -> Row:
        assert self._process.stdout is not None  # noqa: S101  # a pipe
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise BenchmarkError(f"{self.name} ended with code {code}.{self._last_words()}")
        return json.loads(line)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "".join(f"\n    {line}" for line in lines[-20:])


class Command:
    """A command started afresh for every run, without a terminal; its first word is a path."""

    def __init__(self, name: str, command: Sequence[str], threads: int) -> None:
        self.name, self.command, self.threads = name, list(command), threads

    def run(self, times: int) -> Row:
        """Start-up counts. `memory` is the peak of its largest process."""
        rows = [self._once() for _ in range(times)]
        means = {key: statistics.fmean(row[key] for row in rows) for key in ("seconds", "cpu")}
        return {**means, "memory": max(row["memory"] for row in rows)}

    def _once(self) -> Row:
        launcher = [sys.executable, "-I", "-S", str(HERE / "launch.py")]
        with tempfile.NamedTemporaryFile() as log:
            with on_cores(self.threads):
                launched = subprocess.run(  # noqa: S603
                    [*launcher, log.name, *self.command],
                    capture_output=True,
                    text=True,
                    check=True,
                    env=environment(self.threads),
                )
            took: Row = json.loads(launched.stdout)
            if took["code"]:
                said = log.read().decode(errors="replace")[-2000:]
                raise BenchmarkError(f"{self.name} ended with code {took['code']}.\n{said}")
            return took


def compare(
    contenders: Sequence[Contender], *, rounds: int, seconds: float, warm_up: int = 3
) -> dict[str, Row]:
    """Results by name: contenders take turns, after `warm_up` runs of each that don't count.

    Three, as mixer-mlx compiles in the second. A run that takes less than `seconds` is repeated
    within its turn until it takes that long.
    """
    times = {}
    for contender in contenders:
        for _ in range(warm_up):
            first = contender.run(1)["seconds"]
        times[contender.name] = max(1, math.ceil(seconds / first)) if warm_up else 1
    turns: dict[str, list[Row]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        at = number % len(contenders)
        for contender in [*contenders[at:], *contenders[:at]]:
            turns[contender.name].append(contender.run(times[contender.name]))
    return {name: summary(rows, times[name]) for name, rows in turns.items()}


def summary(turns: Sequence[Row], times: int) -> Row:
    """One contender's turns -> its figures."""
    row = {
        "seconds": spread([turn["seconds"] for turn in turns]),
        "cpu_seconds": statistics.median(turn["cpu"] for turn in turns),
        "turns": [turn["seconds"] for turn in turns],
        "runs_in_a_turn": times,
    }
    if "memory" in turns[0]:
        row["memory"] = max(turn["memory"] for turn in turns)
    return row


def ratios(results: dict[str, Row], to: str = OURS) -> dict[str, Row]:
    """Each contender's seconds as a multiple of those of `to`, round by round."""
    if to not in results:
        return {}
    base = results[to]["turns"]
    return {
        name: spread([theirs / ours for theirs, ours in zip(row["turns"], base, strict=True)])
        for name, row in results.items()
        if name != to
    }


def spread(values: Sequence[float]) -> Row:
    """Median and quartiles."""
    if len(values) == 1:
        return {"median": values[0], "low": values[0], "high": values[0]}
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def check_idle(workers: Sequence[Worker]) -> dict[str, float]:
    """Fraction of a core that each waiting worker used, with a warning if it is too much."""
    idle = {worker.name: worker.idle_fraction for worker in workers}
    for name, fraction in idle.items():
        if fraction > MAX_IDLE:
            say(f"WARNING: {name} took {fraction:.0%} of a core while others ran.")
    return idle


def say(text: str) -> None:
    """Write a message to stderr."""
    print(text, file=sys.stderr, flush=True)


def save(path: Path, content: Row) -> None:
    """Write JSON to a temporary file, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    temporary.replace(path)
    say(f"Wrote {path}.")
