"""Common to all benchmarks: options, the machine, workers, and the JSON file."""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any

import harness
from harness import HERE, BenchmarkError, NotInstalledError, Row, Worker, say

from mixer_mlx.runtime.machine import cores

RESULTS = HERE / "results"

CONTENDERS = {
    "mixer-mlx": ("worker_mlx.py", []),
    "mixer-mlx exact": ("worker_mlx.py", []),
    "timm": ("worker_torch.py", []),
    "timm compiled": ("worker_torch.py", ["--compile"]),
    "flax": ("worker_jax.py", []),
    "onnx runtime": ("worker_onnx.py", []),
}
"""Name -> script and arguments."""
PEERS = ["mixer-mlx", "timm", "timm compiled", "flax"]
"""Those that run and train the same models."""
PYTHONS = {
    "worker_mlx.py": None,
    "worker_torch.py": "--torch-python",
    "worker_jax.py": "--jax-python",
    "worker_onnx.py": None,
}
"""Script -> the option that names its python; None: this one."""


def peers(case: Row) -> list[str]:
    """PEERS that have the case's model."""
    return PEERS if "jax" in case else [name for name in PEERS if name != "flax"]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    common = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = sys.executable
    common.add_argument("--torch-python", default=here, help="python with torch and timm")
    common.add_argument("--jax-python", default=here, help="python with jax, flax and optax")
    common.add_argument("--threads", type=int, default=cores(), help="threads of each contender")
    common.add_argument("--rounds", type=int, help="turns of each contender")
    common.add_argument("--contenders", nargs="+", help="contenders to run (all)")
    common.add_argument("--quick", action="store_true", help="only a few small cases, as a trial")
    common.add_argument("--out", type=Path, help="JSON file (results/NAME.json)")
    common.add_argument("--add", action="store_true", help="keep the other cases in that file")
    return common


class Session:
    """One run of one benchmark. Leaving it without an error writes its JSON.

    `rounds` and `seconds` are for `harness.compare`: turns of each contender, and a turn's
    minimum length.
    """

    def __init__(self, name: str, options: argparse.Namespace, *, rounds: int = 7) -> None:
        self.name, self.options = name, options
        self.rounds: int = options.rounds or (3 if options.quick else rounds)
        self.seconds = 0.05 if options.quick else 0.5
        self.cases: list[Row] = []
        self.versions: dict[str, dict[str, str]] = {}
        self.skipped: dict[str, str] = {}
        self.idle: dict[str, float] = {}
        self._load = os.getloadavg()[0]
        self._earlier = self._kept() if options.add else {}

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType
    ) -> None:
        if isinstance(error, BenchmarkError):
            say(str(error))
            raise SystemExit(1) from error
        if kind is None:
            harness.save(self.out, self.to_dict())

    def _kept(self) -> Row:
        """The file's content for --add, with its cases added to ours."""
        if not self.out.is_file():
            return {}
        earlier: Row = json.loads(self.out.read_text("utf-8"))
        now = {"machine": machine(), "threads": self.options.threads, "quick": self.options.quick}
        for key, value in now.items():
            if earlier[key] != value:
                raise SystemExit(
                    f"{self.out} is of another {key}: {earlier[key]}; leave out --add, or give "
                    "another --out."
                )
        once = {key: earlier[key] for key in ("rounds", "date", "load_before")}
        self.cases = [once | case for case in earlier["cases"]]
        return earlier

    @property
    def out(self) -> Path:
        """The JSON file."""
        suffix = ".quick.json" if self.options.quick else ".json"
        return self.options.out or RESULTS / (self.name + suffix)

    def wanted(self, names: Sequence[str]) -> list[str]:
        """The contenders that the user chose."""
        chosen = self.options.contenders
        return [name for name in names if not chosen or name in chosen]

    @contextlib.contextmanager
    def workers(self, names: Sequence[str]) -> Iterator[list[Worker]]:
        """Fresh workers for a case; one that isn't installed is reported and skipped."""
        with contextlib.ExitStack() as stack:
            started = []
            for name in self.wanted(names):
                if name not in self.skipped and (worker := self._worker(name)):
                    stack.callback(worker.close)
                    started.append(worker)
            yield started
            for name, fraction in harness.check_idle(started).items():
                self.idle[name] = max(fraction, self.idle.get(name, 0.0))

    def _worker(self, name: str) -> Worker | None:
        script, arguments = CONTENDERS[name]
        try:
            worker = Worker(name, self.python(script), script, self.options.threads, arguments)
        except NotInstalledError as error:
            option = PYTHONS[script]
            self.skip(name, f"{error}; " + (f"see {option}" if option else "install this project"))
            return None
        if worker.versions != self._earlier.get("versions", {}).get(name, worker.versions):
            raise BenchmarkError(f"{name} has other versions than in {self.out}; omit --add.")
        self.versions[name] = worker.versions
        return worker

    def skip(self, name: str, reason: str) -> None:
        """Leave a contender out of the whole run."""
        self.skipped[name] = reason
        say(f"SKIPPED: {name} ({reason})")

    def python(self, script: str) -> str:
        """The interpreter that runs a worker's script."""
        option = PYTHONS[script]
        return (
            getattr(self.options, option.strip("-").replace("-", "_"))
            if option
            else (sys.executable)
        )

    def add(
        self, case: Row, results: dict[str, Row], *, to: str = harness.OURS, **more: Any
    ) -> None:
        """Keep a case's results with their ratios to those of `to`, and print them in one line."""
        ratios = harness.ratios(results, to)
        self.keep({"case": case, "results": results, "ratios": ratios, **more})
        print(line(case, results, ratios), flush=True)

    def keep(self, row: Row) -> None:
        """Add a case, replacing an older one of the same name."""
        self.cases = [one for one in self.cases if one["case"]["name"] != row["case"]["name"]]
        self.cases.append({**row, **self._when()})
        groups = [_group(one["case"]) for one in self.cases]
        self.cases.sort(key=lambda one: groups.index(_group(one["case"])))

    def to_dict(self) -> Row:
        """The content of the JSON file."""
        return {
            "benchmark": self.name,
            "quick": self.options.quick,
            "machine": machine(),
            "threads": self.options.threads,
            **self._when(),
            "versions": self._earlier.get("versions", {}) | self.versions,
            "skipped": self.skipped,
            "idle_share": self.idle,
            "cases": self.cases,
        }

    def _when(self) -> Row:
        return {
            "date": date.today().isoformat(),
            "load_before": round(self._load, 2),
            "rounds": self.rounds,
        }


def _group(case: Row) -> list[str]:
    """What stands together in a table."""
    return [str(case.get(key)) for key in ("kind", "model", "axis")]


def add_memory(results: dict[str, Row], workers: Sequence[Worker]) -> None:
    """Each worker's peak resident memory of the case, into its results."""
    for worker in workers:
        results[worker.name]["memory"] = worker.ask(do="memory")["memory"]


def device() -> str:
    """ "gpu" if that is MLX's default device."""
    return "cpu" if _gpu() == "none" else "gpu"


def line(case: Row, results: dict[str, Row], ratios: dict[str, Row]) -> str:
    """A case in one line: seconds of mixer-mlx, and the others as multiples of it."""
    parts = [str(case.get("name", case))]
    for name, row in results.items():
        text = f"{name} {time_text(row['seconds']['median'])}"
        if name in ratios:
            text += f" = {ratio_text(ratios[name])}"
        parts.append(text)
    return "   ".join(parts)


def time_text(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def ratio_text(ratio: Row) -> str:
    """Median and quartiles."""
    return f"{ratio['median']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def machine() -> dict[str, str | int | float]:
    """The machine, without its name."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": round(pages / 2**30, 1),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()  # noqa: S603
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for entry in lines:
            if entry.startswith("model name"):
                return entry.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _gpu() -> str:
    """MLX's default device, if that is a GPU."""
    import mlx.core as mx

    device = mx.default_device()
    return str(mx.device_info(device)["device_name"]) if device.type == mx.gpu else "none"
