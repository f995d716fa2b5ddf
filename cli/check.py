"""`mixer check`: find problems in a dataset before training on it."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .terminal import options, output
from .terminal import sheet as sheets

if TYPE_CHECKING:
    from mixer_mlx.analysis.check import Finding, Scan

_EXAMPLES = 5
_ROWS = 30
"""At most this many classes, and examples of each kind of finding, are listed."""


def check(
    data: options.DataArgument,
    near: Annotated[
        int,
        typer.Option(
            "--near",
            min=0,
            max=16,
            help="Near-duplicate threshold: differing hash bits, of 64.",
        ),
    ] = 4,
    image_size: Annotated[
        str,
        typer.Option(
            "--image-size",
            help="Image size of the model, height x width; smaller images are reported.",
        ),
    ] = "32",
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", help="Draw the images that were found on a contact sheet.", dir_okay=False
        ),
    ] = None,
    format: Annotated[
        Literal["table", "json"],
        typer.Option("--format", help="Output format; json is one object per line."),
    ] = "table",
    workers: options.Workers = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Find problems in a dataset before training on it.

    Reports images that can't be read, duplicates and near-duplicates, leaks between training and
    validation, images in two classes, uneven classes, and small or oddly shaped images. The exit
    code is 1 if there are serious problems, and 0 otherwise.
    """
    from mixer_mlx.analysis.check import KINDS, find, read_all_splits, scan
    from mixer_mlx.convert.fetch.datasets import locate
    from mixer_mlx.data.read import Columns

    from .terminal.progress import progress

    size = options.parse_image_size(image_size)
    if sheet:
        sheets.check(sheet, force=force)
    with output.fetching(quiet=quiet) as listener:
        path = locate(data, lambda splits: splits, listener=listener)

    def say(sentence: str) -> None:
        if not quiet:
            output.say(sentence.replace(str(path), data))  # not the path in the Hub's cache

    splits = read_all_splits(path, Columns(image_column, label_column), say)
    with progress(not quiet, [], sum(map(len, splits.values()))) as tick:
        scanned = scan(splits, tick)
    findings = find(scanned, near=near, image_size=size)
    if format == "json":
        sys.stdout.writelines(map(output.json_line, _records(scanned, findings)))
    else:
        sys.stdout.writelines(_table(data, path, scanned, findings))
    if sheet:
        _write_sheet(sheet, scanned, findings)
    if any(KINDS[finding.kind].harmful for finding in findings):
        raise typer.Exit(1)


def _records(scan: "Scan", findings: "list[Finding]") -> Iterator[dict[str, object]]:
    from mixer_mlx.analysis.check import KINDS

    for finding in findings:
        yield {
            "finding": finding.kind,
            "harmful": KINDS[finding.kind].harmful,
            "detail": finding.detail,
            "images": [
                {
                    "image": str(scan.entries[i]),
                    "split": scan.split_of[i] or None,
                    "class": scan.class_of[i],
                }
                for i in finding.images
            ],
        }
    yield {
        "summary": {
            "images": len(scan.entries),
            "splits": {name or "all": split.counts() for name, split in scan.splits.items()},
            "stored": dict(Counter(seen.stored for _, seen in scan.readable()).most_common()),
            "sizes": dict(_sizes(scan).most_common()),
            "findings": dict(Counter(finding.kind for finding in findings)),
        }
    }


def _sizes(scan: "Scan") -> Counter[str]:
    """Width x height -> number of images."""
    return Counter(f"{seen.width}x{seen.height}" for _, seen in scan.readable())


def _table(data: str, root: Path, scan: "Scan", findings: "list[Finding]") -> Iterator[str]:
    from mixer_mlx.analysis.check import KINDS

    yield output.printable(f"{data}: {len(scan.entries):,} images") + "\n\n"
    yield output.columns(list(_class_rows(scan))) + "\n"
    sizes = _sizes(scan).most_common()
    stored = Counter(seen.stored for _, seen in scan.readable()).most_common()
    yield output.columns([("sizes", _counts(sizes)), ("stored", _counts(stored))]) + "\n"
    for harmful, heading in ((True, "serious problems:"), (False, "worth a look:")):
        kinds = [kind for kind in KINDS if KINDS[kind].harmful is harmful]
        some = {kind: [one for one in findings if one.kind == kind] for kind in kinds}
        if any(some.values()):
            yield f"{heading}\n"
            for kind in filter(some.get, kinds):
                count = f": {len(some[kind]):,}" if some[kind][0].images else ""
                yield f"  {KINDS[kind].text}{count}\n"
                yield from _examples(root, scan, some[kind])
        elif harmful:
            yield "no serious problems found\n"


def _class_rows(scan: "Scan") -> Iterator[tuple[str, ...]]:
    counts = [split.counts() for split in scan.splits.values()]
    names = sorted({name for part in counts for name in part})
    yield ("class", *(split or "images" for split in scan.splits))
    for name in names[:_ROWS]:
        yield (name, *(f"{part.get(name, 0):,}" for part in counts))
    if len(names) > _ROWS:
        spans = (f"{min(part.values()):,} to {max(part.values()):,}" for part in counts)
        yield (f"... {len(names):,} classes of", *spans)


def _counts(pairs: list[tuple[str, int]], most: int = 5) -> str:
    shown = ", ".join(f"{name} ({count:,})" for name, count in pairs[:most])
    return shown + (f" and {len(pairs) - most:,} others" if len(pairs) > most else "")


def _examples(root: Path, scan: "Scan", found: "list[Finding]") -> Iterator[str]:
    for finding in found[:_EXAMPLES]:
        names = [str(scan.entries[i]).removeprefix(f"{root}/") for i in finding.images]
        parts = ["  ".join(names[:_EXAMPLES])] if names else []
        if len(names) > _EXAMPLES:
            parts.append(f"and {len(names) - _EXAMPLES:,} more")
        line = " ".join(
            [*parts, f"({finding.detail})" if names and finding.detail else finding.detail]
        )
        yield f"    {output.printable(line.strip())}\n"
    if len(found) > _EXAMPLES:
        yield f"    and {len(found) - _EXAMPLES:,} more; --format json lists all\n"


def _write_sheet(path: Path, scan: "Scan", findings: "list[Finding]") -> None:
    from mixer_mlx.analysis.check import draw_findings
    from mixer_mlx.runtime.atomic import written_file

    page = draw_findings(scan, findings)
    if page is None:
        output.say(f"Nothing to draw; {path} was not written.")
        return
    with written_file(path) as temporary:
        page.save(temporary, "PNG")
