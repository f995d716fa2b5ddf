"""Training steps: mixer-mlx compared with PyTorch (eager and compiled) and Flax with optax.

    python benchmarks/training.py --torch-python PATH --jax-python PATH

One update in float32: uint8 pixels in, cross-entropy, gradients clipped at a global norm of 1,
AdamW or SGD with momentum, weight decay on kernels. All start from the same weights, and the
losses of their first three steps must agree. Decoding and augmentation aren't included.
"""

import tempfile
from pathlib import Path

import agreement
import harness
import models
import session
from session import Session

CASES = {"cifar10": 128, "B/16": 8}
"""Model -> batch size."""
QUICK = {"cifar10": 32, "S/32": 2}
TOLERANCE = 1e-3
"""Largest difference of two losses, as a fraction of the largest."""
SETTINGS = {"lr": 1e-4, "weight_decay": 0.05, "clip_norm": 1.0, "momentum": 0.9}


def main() -> None:
    parser = session.parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=sorted({*CASES, *QUICK}))
    parser.add_argument("--optimizers", nargs="+", default=["sgd", "adamw"])
    parser.add_argument(
        "--device", choices=["cpu", "gpu"], help="default: the GPU, if there is one"
    )
    options = parser.parse_args()
    options.device = options.device or session.device()
    cases = QUICK if options.quick else CASES
    with Session("training", options) as run:
        for name in options.models or cases:
            with models.files(name) as files:
                for optimizer in options.optimizers:
                    measure(run, name, {**QUICK, **cases}[name], optimizer, files)


def measure(run: Session, name: str, batch: int, optimizer: str, files: harness.Row) -> None:
    """One case, with all contenders."""
    shown = {"batch": batch, "optimizer": optimizer, "device": run.options.device}
    case = {"job": "training", "dtype": "float32", **shown, **SETTINGS, **files}
    with run.workers(session.peers(case)) as workers, tempfile.TemporaryDirectory() as folder:
        for worker in workers:
            worker.start(case)
        results = harness.compare(workers, rounds=run.rounds, seconds=run.seconds)
        differences = agreement.check(workers, Path(folder), "losses", TOLERANCE, first=3)
        session.add_memory(results, workers)
    title = f"{name} batch {batch} {optimizer}"
    run.add({"name": title, "model": name, **shown}, results, differences=differences)


if __name__ == "__main__":
    main()
