"""Write the tables of results/*.json into results/README.md, and their main ratios into README.md.

Both between the pages' markers. `--check` writes nothing and exits with 1 if one is out of date.
The exit code is also 1 if a scaling exponent over 1.1 lacks a reason in reasons.toml.
"""

import json
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import hotspot_groups
import memory_tables
import scaling_tables
from harness import HERE, OURS, BenchmarkError, Row
from markdown_table import table

README = HERE / "README.md"
RESULTS = HERE / "results"
ALL = RESULTS / "README.md"
REASONS = HERE / "reasons.toml"
BEGIN, END = "<!-- tables -->\n", "<!-- end of tables -->"

TITLES = {
    "inference": "Forward passes",
    "onnx_runtime": "Exported to ONNX",
    "training": "Training steps",
    "input": "Files to batches",
    "predict": "End to end",
    "album": "Albums of large photos",
    "startup": "Start-up",
    "scaling": "Scaling",
    "memory": "Memory",
    "hotspots": "Where the processor time goes",
}
WITHOUT_ROUNDS = ("memory", "hotspots")


MAIN = [
    ("inference", "cifar10 batch 1 float32", "built-in model, 1 image"),
    ("inference", "cifar10 batch 1 float32, later", "the same after 512, compiled"),
    ("inference", "cifar10 batch 64 float32", "built-in model, 64 images"),
    ("inference", "B/16 batch 1 float32", "B/16, 1 image"),
    ("inference", "B/16 batch 64 float32", "B/16, 64 images"),
    ("training", "cifar10 batch 128 adamw", "built-in model, AdamW step, 128 images"),
    ("training", "B/16 batch 8 adamw", "B/16, AdamW step, 8 images"),
    ("input", "12 megapixels", "JPEG files of 12 megapixels to batches"),
    ("predict", "cifar10", "1,000 images with the built-in model, end to end"),
    ("startup", "one prediction", "one prediction, as a process"),
]
"""The ratios that matter: benchmark, case, and what it is."""


def main() -> None:
    reasons = tomllib.loads(REASONS.read_text("utf-8"))
    pages = {README: main_ratios(RESULTS), ALL: page(RESULTS, reasons)}
    texts = {path: path.read_text("utf-8") for path in pages}
    made = {path: replaced(texts[path], "\n".join(lines)) for path, lines in pages.items()}
    if "--check" in sys.argv[1:]:
        sys.exit(made != texts)
    for path, text in made.items():
        path.write_text(text, "utf-8")


def main_ratios(folder: Path) -> list[str]:
    """MAIN, compared with timm."""
    rows = []
    for benchmark, name, title in MAIN:
        report = json.loads((folder / f"{benchmark}.json").read_text("utf-8"))
        [case] = [case for case in report["cases"] if case["case"]["name"] == name]
        rows.append([title, time_cell(case, OURS).split(" [")[0], time_cell(case, "timm")])
    return [*table(["", "mixer-mlx", "timm"], rows), ""]


def page(folder: Path, reasons: dict[str, str]) -> list[str]:
    """The lines between the markers. Raises BenchmarkError for results of a --quick run."""
    lines = []
    for name, title in TITLES.items():
        path = folder / f"{name}.json"
        if path.is_file():
            report = json.loads(path.read_text("utf-8"))
            if report["quick"]:
                raise BenchmarkError(f"{path.name} is from a --quick run; run the full benchmark.")
            lines += [f"### {title}", "", *about(report), "", *body(report, reasons), ""]
    return lines


def replaced(text: str, tables: str) -> str:
    """The page with new tables between its markers."""
    before, _, rest = text.partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        raise BenchmarkError("README.md lacks the markers of the tables.")
    return f"{before}{BEGIN}{tables}{END}{after}"


def about(report: Row) -> list[str]:
    """The conditions that all figures of a report have in common."""
    machine = report["machine"]
    gpu = "" if machine["gpu"] == "none" else f", {machine['gpu']}"
    rounds, dates, loads = (_each(report, key) for key in ("rounds", "date", "load_before"))
    parts = [
        f"{machine['processor']}{gpu}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}",
        f"{report['threads']} threads each",
        f"{_span(rounds)} rounds" if report["benchmark"] not in WITHOUT_ROUNDS else "",
        _span(dates),
        f"load {_span(loads)} before",
    ]
    lines = ["; ".join(part for part in parts if part)]
    for name, versions in report["versions"].items():
        lines.append(f"{name}: {', '.join(f'{k} {v}' for k, v in versions.items())}")
    for name, reason in report["skipped"].items():
        lines.append(f"NOT MEASURED: {name} ({reason})")
    restless = {name: idle for name, idle in report["idle_share"].items() if idle > 0.05}
    for name, idle in restless.items():
        lines.append(f"{name} took {idle:.0%} of a core while others ran")
    return [f"- {line}" for line in lines]


def _each(report: Row, key: str) -> list[Any]:
    """What the runs that made a report's cases had."""
    return sorted({case.get(key, report[key]) for case in report["cases"]})


def _span(values: Sequence[object]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"


def body(report: Row, reasons: dict[str, str]) -> list[str]:
    """A report's tables."""
    if report["benchmark"] == "scaling":
        return scaling_tables.lines(report["cases"], reasons)
    if report["benchmark"] == "memory":
        return memory_tables.lines(report["cases"])
    if report["benchmark"] == "hotspots":
        return hotspot_groups.lines(report["cases"])
    return comparison(report["cases"])


def comparison(cases: Sequence[Row]) -> list[str]:
    """Times, and below them memory and CPU seconds."""
    names = in_order(case["results"] for case in cases)
    cells = [[case["case"]["name"], *(time_cell(case, name) for name in names)] for case in cases]
    usage = [[case["case"]["name"], *(usage_cell(case, name) for name in names)] for case in cases]
    lines = [
        *table(["", *names], cells),
        "",
        "Peak resident memory, and CPU seconds of a run:",
        "",
        *table(["", *names], usage),
    ]
    largest: dict[str, float] = {}
    for case in cases:
        for name, value in case.get("differences", {}).items():
            largest[name] = max(value, largest.get(name, 0.0))
    if largest:
        shown = ", ".join(f"{name} {value:.1e}" for name, value in largest.items())
        lines += [
            "",
            f"Largest difference of outputs, as a fraction of the largest value: {shown}.",
        ]
    return lines


def in_order(rows: Iterable[Row]) -> list[str]:
    """Names of contenders in order of appearance, ours first."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return sorted(names, key=lambda name: name != OURS)


def time_cell(case: Row, name: str) -> str:
    """Seconds of mixer-mlx; for others, the multiple of them, with quartiles."""
    row = case["results"].get(name)
    if row is None:
        return ""
    seconds = row["seconds"]["median"]
    text = f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
    ratio = case["ratios"].get(name)
    if ratio:
        return f"{ratio['median']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}] ({text})"
    low, high = (row["seconds"][key] / seconds for key in ("low", "high"))
    return f"{text} [{low:.2f}, {high:.2f}]"


def usage_cell(case: Row, name: str) -> str:
    row = case["results"].get(name)
    return f"{row['memory'] / 2**20:,.0f} MiB, {row['cpu_seconds']:.3g} s" if row else ""


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(str(error))
