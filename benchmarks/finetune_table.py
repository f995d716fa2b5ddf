"""What finetune.py measured, as tables, and between the markers of a page."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from finetune_tasks import TASKS
from markdown_table import table

from mixer_mlx.calibration import PRIOR

Row = dict[str, Any]
ORDER = ("ridge probe", "timm", "head only", "from scratch", "quick")
"""The contenders' columns."""


def read(path: Path) -> list[Row]:
    """The rows of a file of results."""
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


def write(page: Path, rows: list[Row]) -> None:
    """Put the tables between the page's markers."""
    text = page.read_text("utf-8")
    for name, lines in tables(rows).items():
        begin, end = f"<!-- {name} of fine-tuning -->\n", f"<!-- end of {name} -->"
        head, rest = text.split(begin)
        text = head + begin + "\n".join([*lines, ""]) + end + rest.split(end, 1)[1]
    page.write_text(text, "utf-8")


def tables(rows: list[Row]) -> dict[str, list[str]]:
    """The lines of each table, by name."""
    return {"accuracy": accuracy(rows), "calibration": calibration(rows)}


def accuracy(rows: list[Row]) -> list[str]:
    """Mean top-1 and spread by task, and of the tasks that all were tried on, ranks and times."""
    tasks = [name for name in TASKS if any(row["task"] == name for row in rows)]
    order = {row["contender"]: None for row in rows}
    names = [*(name for name in ORDER if name in order), *(n for n in order if n not in ORDER)]
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
    return table(["task", *names], lines)


def calibration(rows: list[Row]) -> list[str]:
    """The calibration error of `quick` on the test images, and what `--reject` does with them."""
    head = [
        *("task", "validation images", "temperature", "ECE before", "after"),
        *("answered", "of these right", "all right"),
    ]
    mine = [row for row in rows if row["contender"] == "quick" and row.get("prior") == PRIOR]
    lines = []
    for task in TASKS:
        if own := [row for row in mine if row["task"] == task]:
            lines.append([task, f"{own[0]['validation_images']}", *_calibrated(own)])
    if lines:
        lines.append(["mean", "", *_calibrated(mine)])
    return table(head, lines)


def _calibrated(rows: list[Row]) -> list[str]:
    """Means over the seeds; of precision, over those with an answer, weighted by their number."""
    answers = sum(row["answered"] for row in rows)
    right = sum(row["answered"] * row["precision"] for row in rows if row["answered"])
    return [
        f"{mean(row['temperature'] for row in rows):.2f}",
        *(f"{100 * mean(row[key] for row in rows):.1f}" for key in ("ece_before", "ece_after")),
        f"{100 * answers / len(rows):.0f}",
        f"{100 * right / answers:.1f}" if answers else "",
        f"{100 * mean(row['top1'] for row in rows):.1f}",
    ]


def compared(rows: list[Row], task: str, name: str) -> list[Row]:
    """A contender's results on a task, with the seeds that all who were tried on it have."""
    seeds: dict[str, set[int]] = {}
    for row in rows:
        if row["task"] == task:
            seeds.setdefault(row["contender"], set()).add(row["seed"])
    common = set.intersection(*seeds.values())
    mine = [row for row in rows if (row["task"], row["contender"]) == (task, name)]
    return [row for row in mine if row["seed"] in common]


def cell(values: Sequence[float]) -> str:
    """ "83.1 ± 1.2": per cent, and the sample standard deviation over the seeds."""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}" if values else ""


def ranked(values: Sequence[float]) -> list[float]:
    """1 for the highest; equal values share the mean of their ranks."""
    array = np.array(values)
    higher = (array[None] > array[:, None]).sum(axis=1)
    equal = (array[None] == array[:, None]).sum(axis=1)
    return list(higher + (equal + 1) / 2)
