"""`mixer check`: find problems in a dataset before training on it."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .terminal import files, options, output
from .terminal import sheet as sheets
from .terminal.progress import progress

if TYPE_CHECKING:
    from mixer_mlx.analysis.check import Finding, Scan
    from mixer_mlx.data.read import Dataset
    from mixer_mlx.features.few_shot import ShotResult
    from mixer_mlx.loaded import LoadedModel

_EXAMPLES = 5
_ROWS = 30
"""At most this many classes, and examples of each kind of finding, are listed."""


@dataclass(frozen=True)
class CheckOptions:
    """Each field is an option."""

    data: options.DataArgument
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help="Also judge images by this model's features: labels in doubt, crops and filtered "
            f"copies, whether there are enough. {options.MODEL_HELP}",
            metavar="MODEL",
        ),
    ] = None
    near: Annotated[
        int,
        typer.Option(
            "--near",
            min=0,
            max=16,
            help="Near-duplicate threshold: differing hash bits, of 64.",
        ),
    ] = 4
    alike: Annotated[
        float,
        typer.Option(
            "--alike",
            min=0.3,
            max=1,
            help="With -m: images are reported as alike from this cosine of their features on.",
        ),
    ] = 0.75
    image_size: Annotated[
        str,
        typer.Option(
            "--image-size",
            help="Image size of the model, height x width; smaller images are reported.",
        ),
    ] = "32"
    image_column: options.ImageColumn = None
    label_column: options.LabelColumn = None
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", help="Draw the images that were found on a contact sheet.", dir_okay=False
        ),
    ] = None
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            help="With -m: draw the accuracy by the number of images of each class.",
            metavar="FILE.png",
            dir_okay=False,
        ),
    ] = None
    format: Annotated[
        Literal["table", "json"],
        typer.Option("--format", help="Output format; json is one object per line."),
    ] = "table"
    batch_size: options.BatchSize = 32
    workers: options.Workers = None
    force: options.Force = False
    dtype: options.DTypeOption = None
    device: options.DeviceOption = None
    quiet: options.Quiet = False

    def check(self) -> None:
        """Raises BadParameter for wrong usage, and MixerError for what is bound to fail."""
        if self.plot and not self.model:
            raise typer.BadParameter("--plot needs -m MODEL, whose features it measures.")
        if self.sheet:
            sheets.check(self.sheet, force=self.force)
        if self.plot:
            files.check(self.plot, force=self.force, what="A plot is a PNG", suffixes=(".png",))


@options.with_options(CheckOptions)
def check(asked: CheckOptions) -> None:
    """Find problems in a dataset before training on it.

    Reports images that can't be read, duplicates and near-duplicates, leaks between training and
    validation, images in two classes, uneven classes, and small or oddly shaped images. With -m
    also labels in doubt, crops and filtered copies, and whether more images would help. The exit
    code is 1 if there are serious problems, and 0 otherwise.
    """
    from mixer_mlx.analysis.check import KINDS, find, in_order, scan

    size = options.parse_image_size(asked.image_size)
    asked.check()
    model = _load(asked) if asked.model else None
    path, splits = _splits(asked)
    with progress(not asked.quiet, [], sum(map(len, splits.values()))) as tick:
        scanned = scan(splits, tick)
    findings = find(scanned, near=asked.near, image_size=size)
    curve: list[ShotResult] = []
    if model:
        judged, curve = _judge(asked, scanned, findings, model)
        findings = in_order([*findings, *judged])
    if asked.format == "json":
        sys.stdout.writelines(map(output.json_line, _records(scanned, findings, curve)))
    else:
        sys.stdout.writelines(_table(asked.data, path, scanned, findings, curve))
    if asked.sheet:
        _write_sheet(asked.sheet, scanned, findings)
    if asked.plot:
        _write_plot(asked.plot, str(asked.model), curve)
    if any(KINDS[finding.kind].harmful for finding in findings):
        raise typer.Exit(1)


def _load(asked: CheckOptions) -> "LoadedModel":
    from mixer_mlx.convert import load_embedder

    with output.fetching(quiet=asked.quiet) as listener:
        return load_embedder(
            str(asked.model), dtype=asked.dtype, device=asked.device, listener=listener
        )


def _splits(asked: CheckOptions) -> "tuple[Path, dict[str, Dataset]]":
    """Where the dataset is, and its splits."""
    from mixer_mlx.analysis.check import read_all_splits
    from mixer_mlx.convert.fetch.datasets import locate
    from mixer_mlx.data.read import Columns

    with output.fetching(quiet=asked.quiet) as listener:
        path = locate(asked.data, lambda splits: splits, listener=listener)

    def say(sentence: str) -> None:
        if not asked.quiet:
            output.say(sentence.replace(str(path), asked.data))  # not the path in the Hub's cache

    return path, read_all_splits(path, Columns(asked.image_column, asked.label_column), say)


def _judge(
    asked: CheckOptions, scan: "Scan", findings: "list[Finding]", model: "LoadedModel"
) -> "tuple[list[Finding], list[ShotResult]]":
    """What the model's features say: findings, and accuracies by images of each class."""
    from mixer_mlx.analysis.doubts import accuracy_curve, alike, doubtful_labels, look

    with progress(not asked.quiet, [], sum(1 for _ in scan.readable())) as tick:
        looks = look(scan, model, batch_size=asked.batch_size, tick=tick)
    found = [*alike(scan, looks, findings, asked.alike), *doubtful_labels(scan, looks)]
    return found, accuracy_curve(scan, looks)


def _records(
    scan: "Scan", findings: "list[Finding]", curve: "list[ShotResult]"
) -> Iterator[dict[str, object]]:
    from mixer_mlx.analysis.check import KINDS

    for finding in findings:
        yield {
            "finding": finding.kind,
            "harmful": KINDS[finding.kind].harmful,
            "detail": finding.detail,
            **finding.facts,
            "images": [
                {
                    "image": str(scan.entries[i]),
                    "split": scan.split_of[i] or None,
                    "class": scan.class_of[i],
                }
                for i in finding.images
            ],
        }
    if curve:
        yield {"curve": [{**_point(one), "spread": one.spread} for one in curve]}
    yield {
        "summary": {
            "images": len(scan.entries),
            "splits": {name or "all": split.counts() for name, split in scan.splits.items()},
            "stored": dict(Counter(seen.stored for _, seen in scan.readable()).most_common()),
            "sizes": dict(_sizes(scan).most_common()),
            "findings": dict(Counter(finding.kind for finding in findings)),
        }
    }


def _point(one: "ShotResult") -> dict[str, object]:
    return {"shots": one.shots or "all", "images": one.images, "accuracy": one.mean}


def _sizes(scan: "Scan") -> Counter[str]:
    """Width x height -> number of images."""
    return Counter(f"{seen.width}x{seen.height}" for _, seen in scan.readable())


def _table(
    data: str, root: Path, scan: "Scan", findings: "list[Finding]", curve: "list[ShotResult]"
) -> Iterator[str]:
    from mixer_mlx.analysis.check import KINDS
    from mixer_mlx.analysis.interval import with_interval

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
    if curve:
        yield "\nimages of each class, and a linear classifier's accuracy:\n"
        rows = [{**_point(one), "accuracy": with_interval(one.mean, one.tested)} for one in curve]
        yield output.table(rows)


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


def _write_plot(path: Path, model: str, curve: "list[ShotResult]") -> None:
    from mixer_mlx.analysis.curves import draw_panels, shots_panel
    from mixer_mlx.runtime.atomic import written_file

    if not curve:
        output.say(f"Nothing to draw; {path} was not written.")
        return
    with written_file(path) as temporary:
        draw_panels([shots_panel(model, curve)]).save(temporary, "PNG")
