"""Forward passes: mixer-mlx compared with timm on PyTorch (eager and compiled) and Flax on XLA.

    python benchmarks/inference.py --torch-python PATH --jax-python PATH

All run the same weights on the same uint8 pixels and return float32 logits, which must agree. All
use the GELU of timm (erf), or with --hidden-act gelu_tanh that of the official JAX code.

On the CPU mixer-mlx compiles small batches only once they have come often. They have two cases: the
first few of them, and `later`, after enough for that.
"""

import tempfile
from argparse import Namespace
from pathlib import Path

import agreement
import harness
import models
import session
from session import Session

from mixer_mlx import checkpoint
from mixer_mlx.runtime.tuning import COMPILE_FORWARD_AFTER, COMPILE_FORWARD_FROM

FIRST_SECONDS = 0.05
"""A turn's length if the runs must be few."""
TOLERANCE = {"float32": 2e-5, "float16": 1e-2, "bfloat16": 8e-2}
"""Largest difference of two logits, as a fraction of the largest logit."""


def main() -> None:
    options = parse()
    with Session("inference", options) as run:
        for name in options.models:
            with models.files(name, hidden_act=options.hidden_act) as files:
                for dtype in options.dtypes:
                    for batch in options.batches:
                        earlier = compiled_after(files, batch, options.device)
                        measure(run, name, batch, dtype, files, first=earlier > 0)
                        if earlier:
                            measure(run, name, batch, dtype, files, earlier=earlier)


def parse() -> Namespace:
    parser = session.parser(__doc__)
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--dtypes", nargs="+", choices=list(TOLERANCE))
    parser.add_argument(
        "--device", choices=["cpu", "gpu"], help="default: the GPU, if there is one"
    )
    parser.add_argument("--hidden-act", choices=["gelu", "gelu_tanh"], default="gelu")
    options = parser.parse_args()
    options.device = options.device or session.device()
    half = ["float16", "bfloat16"] if options.device == "gpu" else []
    options.dtypes = options.dtypes or ["float32", *half]
    quick = options.quick
    options.models = options.models or (
        ["cifar10", "S/32"] if quick else ["cifar10", "S/32", "B/16", "L/16"]
    )
    options.batches = options.batches or ([1, 8] if quick else [1, 8, 64])
    return options


def compiled_after(files: harness.Row, batch: int, device: str) -> int:
    """After how many small batches they are compiled; 0 if it doesn't take many, or on a GPU."""
    config = checkpoint.read_info(files["native"]).config
    size = batch * config.num_tokens * config.hidden_dim
    return COMPILE_FORWARD_AFTER // size if device == "cpu" and size < COMPILE_FORWARD_FROM else 0


def measure(
    run: Session,
    name: str,
    batch: int,
    dtype: str,
    files: harness.Row,
    *,
    first: bool = False,
    earlier: int = 0,
) -> None:
    """One case, with all contenders: of the `first` few runs, or after so many `earlier` ones."""
    case = {
        "job": "inference",
        "batch": batch,
        "dtype": dtype,
        "device": run.options.device,
        "earlier": earlier,
        **files,
    }
    with run.workers(session.peers(case)) as workers, tempfile.TemporaryDirectory() as folder:
        for worker in workers:
            worker.start(case)
        seconds = min(run.seconds, FIRST_SECONDS) if first else run.seconds
        results = harness.compare(workers, rounds=run.rounds, seconds=seconds)
        differences = agreement.check(workers, Path(folder), "logits", TOLERANCE[dtype])
        session.add_memory(results, workers)
    later = ", later" if earlier else ""
    shown = {"name": f"{name} batch {batch} {dtype}{later}", "model": name, "batch": batch}
    shown |= {"dtype": dtype, "device": run.options.device, "hidden_act": files["hidden_act"]}
    run.add(shown, results, differences=differences)


if __name__ == "__main__":
    main()
