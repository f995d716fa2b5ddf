"""What `mixer benchmark` found: a table, JSON, CSV, a file, a picture."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .terminal import files, options, output

if TYPE_CHECKING:
    from mixer_mlx.benchmark.measure import Measured
    from mixer_mlx.benchmark.report import Comparison

_HEADER = (
    *("dtype", "batch", "images/s", "ms a batch", "quartiles", "runs"),
    *("peak MiB", "GFLOP/s", "of ceiling"),
)


def _check(*paths: Path | None, force: bool) -> None:
    """Raises MixerError for a file that can't be written, or would be replaced unasked."""
    for path in filter(None, paths):
        files.check(path, force=force)


def _write(
    record: dict[str, object], measured: "Measured", out: Path | None, plot: Path | None
) -> None:
    from mixer_mlx.analysis.curves import draw_panels
    from mixer_mlx.benchmark import report
    from mixer_mlx.runtime.atomic import written_file

    if out:
        with written_file(out) as temporary:
            temporary.write_text(report.to_json(record), encoding="utf-8")
    if plot:
        panel = report.panel(str(record["model"]), measured)
        with written_file(plot) as temporary:
            draw_panels([panel]).save(temporary, "PNG")


def _show(
    record: dict[str, object],
    measured: "Measured",
    style: options.Format,
    comparison: "Comparison | None",
) -> None:
    if style is options.Format.TABLE:
        _print_table(record, measured, comparison)
        return
    rows = [asdict(result) for result in measured.results]
    if comparison:
        rows = [row | {"ratio": r} for row, r in zip(rows, comparison.ratios, strict=True)]
        record = record | {"results": rows, "differences": comparison.differences}
    if style is options.Format.JSON:
        sys.stdout.write(output.json_line(record))
    else:
        output.write_rows(rows, style)


def _print_table(
    record: dict[str, object], measured: "Measured", comparison: "Comparison | None"
) -> None:
    rows = [list(_HEADER)]
    for result in measured.results:
        ms = [1e3 * s for s in (result.seconds, result.seconds_q1, result.seconds_q3)]
        rows.append(
            [
                result.dtype,
                str(result.batch_size),
                f"{result.images_per_second:,.1f}",
                f"{ms[0]:,.2f}",
                f"{ms[1]:,.2f} - {ms[2]:,.2f}",
                str(result.repeats),
                f"{result.peak_memory / 2**20:,.1f}",
                f"{result.flops_per_second / 1e9:,.1f}",
                f"{result.share:.1%}",
            ]
        )
    if comparison:
        ratios = ("" if ratio is None else f"{ratio:.2f} x" for ratio in comparison.ratios)
        for row, cell in zip(rows, ("ratio", *ratios), strict=True):
            row.append(cell)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[cell.rjust(w) for cell, w in zip(row, widths, strict=True)] for row in rows]
    sys.stdout.write(output.columns(aligned))
    print()
    _print_notes(record, measured, comparison)


def _print_notes(
    record: dict[str, object], measured: "Measured", comparison: "Comparison | None"
) -> None:
    flops = int(str(record["flops_per_image"])) * (3 if record["job"] == "train" else 1)
    job = f"{record['job']} ({record['recipe']})" if record["recipe"] else record["job"]
    lines = [f"{record['model']}, {job}: {flops / 1e9:,.3f} GFLOP an image."]
    lines += [
        f"Ceiling in {ceiling.dtype}: {ceiling.flops_per_second / 1e9:,.1f} GFLOP/s, a product of "
        f"{ceiling.side} x {ceiling.side} matrices."
        for ceiling in measured.ceilings
    ]
    if comparison:
        found = comparison.differences.items()
        lines += [f"Differs: {name}: {here} here, {there} there." for name, (here, there) in found]
        if not found:
            lines.append("Model and environment are the same as there.")
    print("\n".join(map(output.printable, lines)))
