"""Fine-tuning on small tasks: `quick`, its head alone, the ridge probe, timm's recipe, scratch.

    python benchmarks/finetune.py CIFAR --torch-python PATH

All contenders of a task and a seed get the same training images (80 % of them; `quick` chooses its
best epoch by the rest), the built-in model, and a test part that nobody chooses by. Each result is
appended to results/finetune.jsonl at once; what is there isn't repeated. `--table` prints
the table from it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import finetune_tasks
import markdown_table
import models
import numpy as np
from finetune_tasks import TASKS, Task

from mixer_mlx import load
from mixer_mlx.analysis.evaluate import evaluate_images
from mixer_mlx.data.loader import DecodedImages
from mixer_mlx.data.read import Dataset, read_split, read_splits

Row = dict[str, Any]
HERE = Path(__file__).parent
QUICK = ["mixer_mlx", "fine-tune", "-m", "cifar10", "--no-report", "--quiet"]


def mixer(folder: Path, task: Task, seed: int, *options: str, command: list[str] = QUICK) -> Row:
    """A run of the command line, and its best model's and last model's accuracy."""
    out = folder / "run"
    flip = [] if task.flip else ["--no-flip"]
    line = [*command, str(folder / "train"), "-o", str(out), "--seed", str(seed), "--force"]
    subprocess.run([sys.executable, "-m", *line, *flip, *options], check=True)  # noqa: S603
    steps = [json.loads(text) for text in (out / "log.jsonl").read_text().splitlines()][-1]["step"]
    test, _ = read_split(folder / "test")
    return {
        "top1": accuracy(out / "best", test),
        "last": accuracy(out / "last", test),
        "steps": steps,
    }


def accuracy(model: Path, test: Dataset) -> float:
    """Top-1 on the test images."""
    return evaluate_images(load(model), DecodedImages(test, refuse), 64).top1


def refuse(path: object, error: Exception) -> None:
    """The images are our own."""
    raise error


def quick(folder: Path, task: Task, seed: int, options: argparse.Namespace) -> Row:
    return mixer(folder, task, seed, *options.options)


def head(folder: Path, task: Task, seed: int, options: argparse.Namespace) -> Row:
    return mixer(folder, task, seed, "--freeze-backbone", "--lr", "5e-3")


def scratch(folder: Path, task: Task, seed: int, options: argparse.Namespace) -> Row:
    """With the same recipe, except for the learning rate of `cifar`."""
    command = ["mixer_mlx", "train", "--like", "cifar10", "--recipe", "quick", "--lr", "2e-3"]
    return mixer(folder, task, seed, command=[*command, "--no-report", "--quiet"])


def probe(folder: Path, task: Task, seed: int, options: argparse.Namespace) -> Row:
    """The ridge solution of `mixer few-shot --shots all`."""
    from mixer_mlx.convert import load_embedder
    from mixer_mlx.features import probe as ridge
    from mixer_mlx.features.dataset import embedded

    train, _ = read_splits(folder / "train", seed=seed)
    test, _ = read_split(folder / "test")
    embedder = load_embedder("cifar10")
    seen, held = embedded(train, embedder), embedded(test, embedder)
    scores = ridge.fit(seen.features, seen.labels, len(train.classes)).scores(held.features)
    return {"top1": float((scores.argmax(axis=1) == held.labels).mean())}


def timm(folder: Path, task: Task, seed: int, options: argparse.Namespace) -> Row:
    """AdamW, cosine, 20 epochs, in the Python of PyTorch."""
    train, _ = read_splits(folder / "train", seed=seed)
    test, _ = read_split(folder / "test")
    with models.files("cifar10") as files:
        case = {**files, "seed": seed, "flip": task.flip, "classes": len(train.classes)}
        for name, part in (("train", train), ("test", test)):
            case[name] = [[str(path) for path in part.paths], part.labels.tolist()]
        (folder / "case.json").write_text(json.dumps(case))
        script = [str(HERE / "finetune_torch.py"), str(folder / "case.json")]
        done = subprocess.run(  # noqa: S603
            [options.torch_python, *script], check=True, capture_output=True, text=True
        )
    return dict(json.loads(done.stdout))


CONTENDERS: dict[str, Callable[[Path, Task, int, argparse.Namespace], Row]] = {
    "quick": quick,
    "head only": head,
    "ridge probe": probe,
    "timm": timm,
    "from scratch": scratch,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="CIFAR-10 in folders, see docs/cifar10.md")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--torch-python", help="a Python with torch and timm")
    parser.add_argument(
        "--options", nargs="+", default=[], help="for quick, e.g. --options=--lr=1e-3"
    )
    parser.add_argument("--name", default="quick", help="what to call quick with other options")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "finetune.jsonl")
    parser.add_argument("--quick", action="store_true", help="one task, one seed, no timm")
    parser.add_argument("--table", action="store_true", help="print the table, measure nothing")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.seeds = list(finetune_tasks.QUICK), 1
        options.results = options.results.with_suffix(".quick.jsonl")
        options.results.unlink(missing_ok=True)
    if not options.torch_python:
        options.contenders = [name for name in options.contenders if name != "timm"]
    if not options.table:
        for seed in range(options.seeds):
            for name in options.tasks:
                measure(name, seed, options)
    print("\n".join(table(read(options.results))))


def measure(name: str, seed: int, options: argparse.Namespace) -> None:
    """All contenders on one task and seed, except those whose result is known."""
    done = {(row["task"], row["seed"], row["contender"]) for row in read(options.results)}
    called = {one: options.name if one == "quick" else one for one in options.contenders}
    missing = [one for one in options.contenders if (name, seed, called[one]) not in done]
    if not missing:
        return
    task = TASKS[name]
    with TemporaryDirectory(prefix="mixer-mlx-benchmark-") as temporary:
        folder = Path(temporary)
        finetune_tasks.write(task, options.data, seed, folder)
        for one in missing:
            start, cpu = time.perf_counter(), cpu_seconds()
            found = CONTENDERS[one](folder, task, seed, options)
            took = {"seconds": time.perf_counter() - start, "cpu": cpu_seconds() - cpu}
            row = {"task": name, "seed": seed, "contender": called[one], **found, **took}
            options.results.parent.mkdir(exist_ok=True)
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), file=sys.stderr)


def cpu_seconds() -> float:
    """Of this process and of those that it waited for: other work on the machine matters less."""
    import resource

    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def read(path: Path) -> list[Row]:
    """The rows of a file of results."""
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


def table(rows: list[Row]) -> list[str]:
    """Mean top-1 and spread by task, CPU time, and the average rank where all were measured."""
    tasks = [name for name in TASKS if any(row["task"] == name for row in rows)]
    names = list(dict.fromkeys(row["contender"] for row in rows))
    found = {(task, name): compared(rows, task, name) for task in tasks for name in names}
    lines = [
        [task, *(cell([row["top1"] for row in found[task, name]]) for name in names)]
        for task in tasks
    ]
    full = [task for task in tasks if all(found[task, name] for name in names)]
    ranks = [
        ranked([mean(r["top1"] for r in found[task, name]) for name in names]) for task in full
    ]
    if ranks:
        lines.append(
            ["average rank", *(f"{np.mean(column):.1f}" for column in zip(*ranks, strict=True))]
        )
        times = [mean(r["cpu"] for task in full for r in found[task, name]) for name in names]
        lines.append(["CPU seconds", *(f"{seconds:.0f}" for seconds in times)])
    return markdown_table.table(["task", *names], lines)


def compared(rows: list[Row], task: str, name: str) -> list[Row]:
    """A contender's results on a task, with the seeds that all who were tried on it have."""
    seeds: dict[str, set[int]] = {}
    for row in rows:
        if row["task"] == task:
            seeds.setdefault(row["contender"], set()).add(row["seed"])
    common = set.intersection(*seeds.values())
    mine = [row for row in rows if (row["task"], row["contender"]) == (task, name)]
    return [row for row in mine if row["seed"] in common]


def cell(values: list[float]) -> str:
    """ "83.1 ± 1.2": per cent, and the sample standard deviation over the seeds."""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}" if values else ""


def ranked(values: list[float]) -> list[float]:
    """1 for the highest; equal values share the mean of their ranks."""
    array = np.array(values)
    higher = (array[None] > array[:, None]).sum(axis=1)
    equal = (array[None] == array[:, None]).sum(axis=1)
    return list(higher + (equal + 1) / 2)


if __name__ == "__main__":
    main()
