"""Where the processor time of mixer-mlx goes, by Linux's perf.

    python benchmarks/hotspots.py

A worker runs each case as for the other benchmarks, and once it is warm, perf samples it. Root may
do that, and others if kernel.perf_event_paranoid is 1 or less. The functions are put into the
groups of hotspot_groups.py.
"""

import math
import tempfile
from pathlib import Path

import hotspot_groups
import models
import perf
import session
from harness import OURS, Row
from inference import compiled_after
from session import Session, time_text
from training import SETTINGS

CASES: dict[str, Row] = {
    "cifar10 batch 1": {"job": "inference", "model": models.BUILT_IN, "batch": 1},
    "cifar10 batch 8": {"job": "inference", "model": models.BUILT_IN, "batch": 8},
    "cifar10 batch 64": {"job": "inference", "model": models.BUILT_IN, "batch": 64},
    "B/16 batch 1": {"job": "inference", "model": "B/16", "batch": 1},
    "B/16 batch 8": {"job": "inference", "model": "B/16", "batch": 8},
    "cifar10 batch 128 adamw": {"job": "training", "model": models.BUILT_IN, "batch": 128},
    "B/16 batch 8 adamw": {"job": "training", "model": "B/16", "batch": 8},
}
QUICK = ("cifar10 batch 8",)
WARM_UP = 3
SECONDS, QUICK_SECONDS = 15.0, 2.0
PRINTED = 0.5
"""The least per cent that is printed."""


def main() -> None:
    parser = session.parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), help="cases to run (all)")
    options = parser.parse_args()
    with Session("hotspots", options) as run:
        path = perf.find()
        run.versions["perf"] = {"perf": perf.version(path)}
        for name in options.cases or (QUICK if options.quick else CASES):
            with models.files(CASES[name]["model"]) as files:
                measure(run, path, name, files)


def measure(run: Session, path: str, name: str, files: Row) -> None:
    """One case."""
    shown = CASES[name]
    case = {**SETTINGS, "optimizer": "adamw", "dtype": "float32", "device": "cpu", **files, **shown}
    case["earlier"] = compiled_after(files, shown["batch"], "cpu")
    seconds = QUICK_SECONDS if run.options.quick else SECONDS
    with run.workers([OURS]) as (worker,), tempfile.TemporaryDirectory() as folder:
        worker.start(case)
        worker.run(WARM_UP)
        times = math.ceil(seconds / worker.run(WARM_UP)["seconds"])
        data = Path(folder) / "perf.data"
        with perf.recording(path, worker.pid, data):
            took = worker.run(times)
        functions = perf.functions(path, data)
    percent = hotspot_groups.percentages(functions)
    result = {
        "seconds": took["seconds"],
        "cpu_seconds": took["cpu"],
        "runs": times,
        "samples": sum(function.samples for function in functions),
        "percent": percent,
        "largest": hotspot_groups.largest(functions),
    }
    kind = {"kind": shown["job"], "model": shown["model"], "batch": shown["batch"]}
    run.keep({"case": {"name": name, **kind}, "results": {OURS: result}, "ratios": {}})
    parts = [f"{group} {value:.1f}" for group, value in percent.items() if value >= PRINTED]
    print("   ".join([f"{name} {time_text(took['seconds'])}", *parts]), flush=True)


if __name__ == "__main__":
    main()
