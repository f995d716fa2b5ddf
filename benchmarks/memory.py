"""Memory allocated by MLX: forward passes, training steps, and runs compared with --plan.

    python benchmarks/memory.py

The figures are `mx.get_peak_memory()`, weights included: the peak of MLX's arrays, not of the
process. On Linux that is MLX's CPU backend; Metal is unmeasured. Each figure comes from a separate
process. If all blocks would take too much time or memory here, fewer are measured, and the row
shows how many.

`mixer train --plan` measures four steps on noise; the table compares it with a run on JPEG files
with validation.
"""

import contextlib
import os
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import images
import models
import session
from harness import Row
from session import Session

from mixer_mlx import VARIANTS, MixerConfig
from mixer_mlx.runtime.streams import rounds
from mixer_mlx.training.prepare import estimated_bytes
from mixer_mlx.training.recipe import Recipe

BATCHES = {"inference": (1, 8, 64), "training": (1, 8, 32)}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "inference": {"float32": {}, "float16": {"dtype": "float16"}},
    "training": {
        "float32": {},
        "checkpointing": {"gradient_checkpointing": True},
        "accumulation": {"accumulation": 4},
        "float16": {"dtype": "float16"},
        "adapters": {"lora_rank": 8},
    },
}
"""How a case is computed -> fields of the recipe. A batch of 1 can't be accumulated."""
IMAGES = 200
PLANS = {
    "cifar10, batch 128": ("cifar10", {"batch_size": 128}),
    "S/32, batch 16": ("S/32", {"batch_size": 16}),
    "S/32, batch 16, accumulation 4": ("S/32", {"batch_size": 16, "accumulation": 4}),
    "B/16, batch 4": ("B/16", {"batch_size": 4}),
    "B/16, batch 4, checkpointing": ("B/16", {"batch_size": 4, "gradient_checkpointing": True}),
    "B/16, batch 4, adapters": ("B/16", {"batch_size": 4, "lora_rank": 8}),
    "L/16, batch 4, adapters": ("L/16", {"batch_size": 4, "lora_rank": 8}),
    "ResMLP-S12, batch 4": ("ResMLP-S12", {"batch_size": 4}),
    "gMLP-Ti/16, batch 4": ("gMLP-Ti/16", {"batch_size": 4}),
    "gMixer-12, batch 4": ("gMixer-12", {"batch_size": 4}),
}
QUICK_PLANS = ("cifar10, batch 128",)
QUICK_VARIANTS = ("S/32", "B/16")
MAX_GMACS = {"cpu float32": 500, "cpu float16": 5}
"""The largest case measured, by device and dtype; others have no limit."""
MEMORY_SHARE = 0.5
"""The fraction of the machine's memory that a case may need, by `estimate`."""


def main() -> None:
    options = parse()
    variants = options.variants or (QUICK_VARIANTS if options.quick else ["cifar10", *VARIANTS])
    with Session("memory", options) as run:
        for kind in [kind for kind in ("inference", "training") if kind in options.parts]:
            for name in variants:
                for batch in BATCHES[kind][:1] if options.quick else BATCHES[kind]:
                    measure(run, kind, name, batch)
        if "plans" in options.parts:
            compare_plans(run)


def parse() -> Namespace:
    parser = session.parser(__doc__)
    parser.add_argument("--variants", nargs="+", choices=["cifar10", *VARIANTS])
    parser.add_argument(
        "--device", choices=["cpu", "gpu"], help="default: the GPU, if there is one"
    )
    parts = ["inference", "training", "plans"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    options = parser.parse_args()
    options.device = options.device or session.device()
    return options


def measure(run: Session, kind: str, name: str, batch: int) -> None:
    """The peak for each setting, in a separate process each."""
    results: dict[str, Row] = {}
    config = config_of(name)
    for setting, fields in SETTINGS[kind].items():
        if fields.get("accumulation", 1) > batch:
            continue
        dtype = fields.get("dtype", "float32")
        blocks = affordable(config, kind, batch, f"{run.options.device} {dtype}")
        case = {"job": f"{kind} memory", "model": name, "blocks": blocks, "batch": batch}
        case |= {"device": run.options.device, "dtype": dtype, "recipe": fields}
        results[setting] = {**facts(run, case, runs=2), "blocks": blocks}
    shown = {"kind": kind, "model": name, "batch": batch, "of_blocks": config.num_blocks}
    keep(run, {"name": f"{kind} {name} batch {batch}", **shown}, results)


def config_of(name: str) -> MixerConfig:
    return models.make(name)[1].config if name == models.BUILT_IN else MixerConfig.variant(name)


def affordable(config: MixerConfig, kind: str, batch: int, speed: str) -> int:
    """The largest number of blocks with which a case is neither too long nor too large."""
    passes = 3 if kind == "training" else 1
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for blocks in range(config.num_blocks, 1, -1):
        fewer = config.replace(num_blocks=blocks)
        gmacs = passes * batch * fewer.num_macs / 1e9
        fast = gmacs <= MAX_GMACS.get(speed, float("inf"))
        if fast and estimate(fewer, kind, batch) <= MEMORY_SHARE * machine:
            return blocks
    return 1


def estimate(config: MixerConfig, kind: str, batch: int) -> float:
    """Rough bytes, to avoid cases that exceed the memory; not for the tables."""
    if kind == "training":
        return estimated_bytes(config, Recipe(steps=1, batch_size=batch))
    S, C = config.num_tokens, config.hidden_dim
    block = 8 * S * C + 2 * config.tokens_mlp_dim * C + 2 * S * config.channels_mlp_dim
    _, at_once = rounds(config, batch)[0][-1]
    return 4.0 * (config.num_parameters + at_once * block)


def facts(run: Session, case: Row, *, runs: int) -> Row:
    """The facts that a fresh worker reports after `times` runs of a case."""
    with one_worker(run) as worker:
        worker.start(case)
        worker.run(runs)
        return {**worker.ask(do="facts")["facts"], "memory": worker.ask(do="memory")["memory"]}


@contextlib.contextmanager
def one_worker(run: Session) -> Iterator[harness.Worker]:
    with run.workers([harness.OURS]) as (worker,):
        yield worker


def compare_plans(run: Session) -> None:
    """All of PLANS, on the same images."""
    with tempfile.TemporaryDirectory() as folder:
        files = images.write(Path(folder), IMAGES, images.SMALL, classes=2)
        for title in QUICK_PLANS if run.options.quick else PLANS:
            compare_plan(run, title, *PLANS[title], files)


def compare_plan(run: Session, title: str, name: str, fields: Row, files: Path) -> None:
    """`--plan` and the run."""
    case = {
        "model": name,
        "blocks": config_of(name).num_blocks,
        "device": run.options.device,
        "pictures": str(files),
        "steps": 6 if run.options.quick else 16,
        "recipe": fields,
    }
    results = {job: facts(run, {"job": job, **case}, runs=1) for job in ("plan", "real")}
    keys = ("peak", "images_per_second")
    ratios = {key: results["real"][key] / results["plan"][key] for key in keys}
    shown = {"kind": "plan", "name": f"plan {title}", "title": title, "steps": case["steps"]}
    keep(run, shown, results, ratios)


def keep(run: Session, case: Row, results: dict[str, Row], ratios: Row | None = None) -> None:
    """Add a case to the JSON and print it in one line."""
    run.keep({"case": case, "results": results, "ratios": ratios or {}})
    parts = [f"{name} {row['peak'] / 2**20:,.0f} MiB" for name, row in results.items()]
    parts += [f"real/plan {key} {value:.2f}" for key, value in (ratios or {}).items()]
    print("   ".join([case["name"], *parts]), flush=True)


if __name__ == "__main__":
    main()
