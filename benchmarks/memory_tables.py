"""The tables of memory.py's results."""

from collections.abc import Sequence

from harness import Row
from markdown_table import table

HEADS = {
    "inference": "Forward pass, peak allocated",
    "training": "Training step (AdamW, clipping), peak allocated",
}


def lines(cases: Sequence[Row]) -> list[str]:
    """Forward passes, training steps, and plans beside runs."""
    out = [
        "Allocated on MLX's CPU backend, weights included; Metal unmeasured. Where a figure says "
        "`n of m blocks`, the model had fewer blocks: all would have taken too long there, or too "
        "much memory.",
        "",
    ]
    for kind, head in HEADS.items():
        own = [case for case in cases if case["case"]["kind"] == kind]
        if own:
            out += [f"{head}:", "", *peaks(own), ""]
    plans = [case for case in cases if case["case"]["kind"] == "plan"]
    return [*out, *plan_table(plans)] if plans else out[:-1]


def peaks(cases: Sequence[Row]) -> list[str]:
    names = list(dict.fromkeys(name for case in cases for name in case["results"]))
    rows = []
    for case in cases:
        shown = case["case"]
        found = (case["results"].get(name) for name in names)
        cells = [cell(row, shown["of_blocks"]) if row else "" for row in found]
        rows.append([shown["model"], str(shown["batch"]), *cells])
    return table(["model", "batch", *names], rows)


def cell(row: Row, of_blocks: int) -> str:
    size = mib(row["peak"])
    return size if row["blocks"] == of_blocks else f"{size} ({row['blocks']} of {of_blocks} blocks)"


def plan_table(plans: Sequence[Row]) -> list[str]:
    rows = []
    for plan in plans:
        planned, real = (plan["results"][key] for key in ("plan", "real"))
        rates = [f"{row['images_per_second']:.3g}" for row in (planned, real)]
        rows.append(
            [
                plan["case"]["title"],
                mib(planned["peak"]),
                mib(real["peak"]),
                f"{plan['ratios']['peak']:.2f}",
                *rates,
                f"{plan['ratios']['images_per_second']:.2f}",
            ]
        )
    head = ["run", "planned memory", "real", "real / planned"]
    head += ["planned images/s", "real", "real / planned"]
    title = "`mixer train --plan` compared with the run, decoding and validation included:"
    return [title, "", *table(head, rows)]


def mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
