"""The tables of scaling.py's results."""

from collections.abc import Sequence

from harness import BenchmarkError, Row
from markdown_table import table
from scaling import exponents
from session import ratio_text, time_text

STEEP = 1.1
"""An exponent over this needs a reason."""
NAMES = {"seconds": "time", "peak": "memory", "macs": "operations"}


def lines(cases: Sequence[Row], reasons: dict[str, str]) -> list[str]:
    """Exponents, reasons for steep ones, the plot, and the points."""
    found = list(exponents(cases))
    return [
        "![time and memory](scaling.png)",
        "",
        "Exponents on the upper half of the points:",
        "",
        *exponent_table(found),
        "",
        *reason_lines(found, reasons),
        "",
        *point_table(cases),
    ]


def exponent_table(found: Sequence[Row]) -> list[str]:
    rows = []
    for axis, kind, start in dict.fromkeys((e["axis"], e["kind"], e["from"]) for e in found):
        own = {
            e["quantity"]: e["exponent"] for e in found if (e["axis"], e["kind"]) == (axis, kind)
        }
        rows.append([axis, kind, f"{start}", *(f"{own[quantity]:.2f}" for quantity in NAMES)])
    return table(["axis", "model", "from", *NAMES.values()], rows)


def reason_lines(found: Sequence[Row], reasons: dict[str, str]) -> list[str]:
    """One line per exponent over STEEP. Raises BenchmarkError for one without a reason."""
    steep = [
        f"{e['axis']} {e['kind']} {NAMES[e['quantity']]}" for e in found if e["exponent"] > STEEP
    ]
    if missing := [name for name in steep if name not in reasons]:
        raise BenchmarkError(f"reasons.toml lacks a reason for {', '.join(missing)}; add it.")
    return [f"- {name}: {reasons[name]}" for name in steep]


def point_table(cases: Sequence[Row]) -> list[str]:
    rows = []
    for case in cases:
        for kind, row in case["results"].items():
            figures = [
                time_text(row["seconds"]["median"]),
                f"{row['peak'] / 2**20:,.0f} MiB",
                f"{row['macs'] / 1e9:.3g} G",
                f"{row['macs'] / row['seconds']['median'] / 1e9:.3g} G",
            ]
            if kind in case["ratios"]:
                figures[0] += f" = {ratio_text(case['ratios'][kind])}"
            rows.append([case["case"]["name"], kind, *figures])
    head = ["", "model", "time, as a multiple of the Mixer's", "peak memory"]
    return table([*head, "MACs", "MACs per second"], rows)
