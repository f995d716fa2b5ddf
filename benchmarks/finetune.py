"""Fine-tuning on small tasks: `quick`, its head alone, the ridge probe, timm's recipe, scratch.

    python benchmarks/finetune.py CIFAR --torch-python PATH

All contenders of a task and a seed get the same training images (80 % of them; `quick` chooses its
weights by the rest), the built-in model, and a test part that nobody chooses by. Each result is
appended to results/finetune.jsonl at once; what is there isn't repeated, unless the recipe `quick`
is another now. `--table` prints the tables from it, `--write PAGE` puts them between its markers.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import finetune_table
import finetune_tasks
import models
from finetune_table import Row, read
from finetune_tasks import TASKS, Task

from mixer_mlx import checkpoint
from mixer_mlx.calibration import PRIOR, confidences, ece
from mixer_mlx.data.read import Dataset, read_split, read_splits
from mixer_mlx.training.choice import MARGIN
from mixer_mlx.training.pages import Judged
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.recipes import RECIPES

HERE = Path(__file__).parent
QUICK = ["mixer_mlx", "fine-tune", "-m", "cifar10", "--no-report", "--quiet"]


def mixer(folder: Path, task: Task, seed: int, *options: str, command: list[str] = QUICK) -> Row:
    """A run of the command line, and its best model's and last model's accuracy."""
    out = folder / "run"
    flip = [] if task.flip else ["--no-flip"]
    line = [*command, str(folder / "data"), "-o", str(out), "--seed", str(seed), "--force"]
    subprocess.run([sys.executable, "-m", *line, *flip, *options], check=True)  # noqa: S603
    log = [json.loads(text) for text in (out / "log.jsonl").read_text().splitlines()]
    test, _ = read_split(folder / "test")
    last = judged(out / "last", test)
    return {
        **certainty(out / "best", test),
        "last": float((last.logits.argmax(axis=1) == last.labels).mean()),
        "kept": next(line["best"] for line in reversed(log) if line.get("best")),
        "steps": log[-1]["step"],
        "recipe": fingerprint(),
        "prior": PRIOR,
    }


def judged(model: Path, test: Dataset) -> Judged:
    """Its logits on the test images, without a temperature."""
    return Judged(model, test, 64, base=checkpoint.load(model))


def certainty(model: Path, test: Dataset) -> Row:
    """Accuracy, calibration error and `--reject` on images that the temperature hasn't seen."""
    calibration = checkpoint.read_info(model).calibration
    if calibration is None:
        raise ValueError(f"{model} has no temperature")
    found = judged(model, test)
    right = found.logits.argmax(axis=1) == found.labels
    before, after = (confidences(found.logits / t) for t in (1.0, calibration.temperature))
    limit = calibration.reject_below
    answered = after >= (2.0 if limit is None else limit)
    return {
        "top1": float(right.mean()),
        "validation_images": calibration.images,
        "temperature": calibration.temperature,
        "ece_before": ece(before, right),
        "ece_after": ece(after, right),
        "answered": float(answered.mean()),
        "precision": float(right[answered].mean()) if answered.any() else None,
    }


def fingerprint() -> str:
    """Of what the recipe `quick` sets: results of another one are measured again."""
    plain = Recipe(epochs=1).to_dict()
    sets = {k: v for k, v in RECIPES["quick"].recipe.to_dict().items() if v != plain[k]}
    text = json.dumps({**sets, "margin": MARGIN}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def quick(folder: Path, task: Task, seed: int, options: argparse.Namespace) -> Row:
    return mixer(folder, task, seed, *options.options, *options.short)


def head(folder: Path, task: Task, seed: int, options: argparse.Namespace) -> Row:
    return mixer(folder, task, seed, "--freeze-backbone", "--lr", "5e-3", *options.short)


def scratch(folder: Path, task: Task, seed: int, options: argparse.Namespace) -> Row:
    """With the same recipe, except for the learning rate of `cifar`."""
    command = ["mixer_mlx", "train", "--like", "cifar10", "--recipe", "quick", "--lr", "2e-3"]
    command += ["--no-report", "--quiet"]
    return mixer(folder, task, seed, *options.short, command=command)


def probe(folder: Path, task: Task, seed: int, options: argparse.Namespace) -> Row:
    """The ridge solution of `mixer few-shot --shots all`."""
    from mixer_mlx.convert import load_embedder
    from mixer_mlx.features import probe as ridge
    from mixer_mlx.features.dataset import embedded

    train, _ = read_splits(folder / "data")
    test, _ = read_split(folder / "test")
    embedder = load_embedder("cifar10")
    seen, held = embedded(train, embedder), embedded(test, embedder)
    scores = ridge.fit(seen.features, seen.labels, len(train.classes)).scores(held.features)
    return {"top1": float((scores.argmax(axis=1) == held.labels).mean())}


def timm(folder: Path, task: Task, seed: int, options: argparse.Namespace) -> Row:
    """AdamW, cosine, 20 epochs, in the Python of PyTorch."""
    train, _ = read_splits(folder / "data")
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
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS)[:-1])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--torch-python", help="a Python with torch and timm")
    parser.add_argument(
        "--options", nargs="+", default=[], help="for quick, e.g. --options=--lr=1e-3"
    )
    parser.add_argument("--name", default="quick", help="what to call quick with other options")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "finetune.jsonl")
    parser.add_argument("--quick", action="store_true", help="two steps on a tiny task, no timm")
    parser.add_argument("--table", action="store_true", help="print the tables, measure nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="the same, into a page")
    options = parser.parse_args()
    options.short = ["--steps", "2"] if options.quick else []
    if options.quick:
        options.tasks, options.seeds, options.torch_python = [finetune_tasks.QUICK], 1, None
        options.results = options.results.with_suffix(".quick.jsonl")
        options.results.unlink(missing_ok=True)
    if not options.torch_python:
        options.contenders = [name for name in options.contenders if name != "timm"]
    if not (options.table or options.write):
        for seed in range(options.seeds):
            for name in options.tasks:
                measure(name, seed, options)
    rows = valid(read(options.results))
    if options.write:
        finetune_table.write(options.write, rows)
    else:
        for lines in finetune_table.tables(rows).values():
            print("\n".join([*lines, ""]))


def valid(rows: list[Row]) -> list[Row]:
    """Those that another recipe hasn't made."""
    return [row for row in rows if row.get("recipe", fingerprint()) == fingerprint()]


def measure(name: str, seed: int, options: argparse.Namespace) -> None:
    """All contenders on one task and seed, except those whose result is known."""
    rows = valid(read(options.results))
    done = {(row["task"], row["seed"], row["contender"]) for row in rows}
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


if __name__ == "__main__":
    main()
