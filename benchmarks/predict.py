"""End to end: `mixer predict` on a folder, compared with a script that does the same with timm.

    python benchmarks/predict.py --torch-python PATH

Both are commands, so start-up, loading, decoding, the model and writing JSON count. Both use
the same weights, batches of 32 and one decoder per thread, and must give the same classes.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import harness
import images
import models
import session
from harness import HERE, BenchmarkError, Command
from session import Session

TOLERANCE = 1e-3
"""Largest difference in the probability of the first class."""


def main() -> None:
    parser = session.parser(__doc__)
    parser.add_argument("--photo", type=Path, help="photograph to make the images from")
    parser.add_argument("--images", type=int, help="number of images (1000)")
    parser.add_argument("--models", nargs="+")
    options = parser.parse_args()
    count = options.images or (24 if options.quick else 1000)
    names = options.models or (["cifar10"] if options.quick else ["cifar10", "S/32", "B/16"])
    with Session("predict", options, rounds=5) as run, tempfile.TemporaryDirectory() as folder:
        files = images.write(Path(folder) / "jpg", count, images.SMALL, photo=options.photo)
        for name in names:
            measure(run, name, count, files, Path(folder))


def measure(run: Session, name: str, count: int, files: Path, folder: Path) -> None:
    """One model, with both commands."""
    threads = run.options.threads
    with models.files(name) as model:
        ours, theirs = folder / "ours.jsonl", folder / "theirs.jsonl"
        command = ["-m", "mixer_mlx", "predict", str(files), "-m", model["native"], "--quiet"]
        command += ["--device", "cpu", "--format", "json", "-o", str(ours), "--force"]
        contenders = [Command(harness.OURS, [sys.executable, *command], threads)]
        peer = [str(HERE / "timm_predict.py"), str(files), model["timm"], str(theirs)]
        contenders += peers(run, [*peer, "--workers", str(threads)])
        results = harness.compare(contenders, rounds=run.rounds, seconds=0, warm_up=1)
    if len(contenders) > 1:
        check(read(ours), read(theirs))
    run.add({"name": name, "model": name, "pictures": count}, results)


def peers(run: Session, command: Sequence[str]) -> list[Command]:
    """timm's command, if timm is installed."""
    with run.workers([harness.OURS, "timm"]) as found:  # for the versions, or to skip timm
        present = [worker.name for worker in found if worker.name != harness.OURS]
    python = run.python("worker_torch.py")
    return [Command(name, [python, *command], run.options.threads) for name in present]


def read(path: Path) -> dict[str, tuple[int, float]]:
    """Name of an image -> first class and its probability."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    first = {Path(row["image"]).name: row["predictions"][0] for row in rows}
    return {name: (top["index"], top["probability"]) for name, top in first.items()}


def check(ours: dict[str, tuple[int, float]], theirs: dict[str, tuple[int, float]]) -> None:
    """Raises BenchmarkError unless both predict the same, except for ties."""
    if ours.keys() != theirs.keys():
        raise BenchmarkError("The two commands predicted different images.")
    for name, (index, probability) in ours.items():
        other, its = theirs[name]
        if abs(probability - its) > TOLERANCE:
            raise BenchmarkError(
                f"{name}: {index} at {probability}, but timm predicts {other} at {its}."
            )


if __name__ == "__main__":
    main()
