"""`mixer evaluate`: how often is a model right?"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import data_options as d
from .terminal import files, options, output
from .terminal.ranks import joined, refuse_several

if TYPE_CHECKING:
    from mixer_mlx.data.read import Entry
    from mixer_mlx.errors import ImageError


def evaluate(
    data: d.Data,
    model: options.ModelOption = options.DEFAULT_MODEL,
    batch_size: Annotated[
        int, typer.Option("-b", "--batch-size", min=1, help="Images computed at once.")
    ] = 32,
    format: options.FormatOption = options.Format.TABLE,
    dtype: options.DTypeOption = None,
    device: options.DeviceOption = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write a page with the confusion matrix and the worst images.",
            metavar="FILE.html",
            dir_okay=False,
        ),
    ] = None,
    force: options.Force = False,
    split: d.Split = None,
    image_column: d.ImageColumn = None,
    label_column: d.LabelColumn = None,
    quiet: options.Quiet = False,
) -> None:
    """Show a model's accuracy on labelled images: top-1, top-5, loss, images per second.

    Images are decoded in full and not turned by their EXIF orientation, as in the published
    evaluations. Those that can't be read are named and left out, and the exit code is 1.
    """
    import numpy as np

    from mixer_mlx.analysis.evaluate import Outcome
    from mixer_mlx.analysis.evaluate import evaluate as run
    from mixer_mlx.convert import load
    from mixer_mlx.data.loader import DecodedImages, EvaluationBatches
    from mixer_mlx.data.read import match_classes

    if report:
        refuse_several("--report is for one process alone.")
        files.check(report, force=force, what="A report is HTML", suffixes=(".html", ".htm"))
    with joined("start the command again.") as ranks:
        quiet = quiet or ranks.rank > 0
        dataset, part = d.read_split(data, split, image_column, label_column, quiet=quiet)
        with output.fetching(quiet=quiet) as listeners:
            classifier = load(model, dtype=dtype, device=device, **listeners)
        classes = np.array(match_classes(dataset.classes, classifier.labels), np.int32)
        shard = dataset.take(ranks.shard(len(dataset)))
        images = DecodedImages(shard, _say_bad, memory_bytes=0, exact=True)
        batches = EvaluationBatches(images, classifier.preprocess, batch_size)
        outcomes: list[Outcome] | None = [] if report else None
        metrics = run(classifier.logits, batches, classes, outcomes, ranks)
        unreadable = sum(ranks.all_gather(len(images.bad)))
    if report and outcomes:
        from mixer_mlx.analysis.report import Report, describe, readable, write

        facts = [*describe(classifier.info, metrics, images), ("data", f"{data} {part}".strip())]
        write(report, Report(model, facts, classifier.labels, readable(images), outcomes))
    record = {
        "model": model,
        "data": data,
        "split": part or None,
        **asdict(metrics),
        "unreadable": unreadable,
    }
    if format is options.Format.TABLE:
        record |= {key: f"{record[key]:.2%}" for key in ("top1", "top5")}
        record |= {key: f"{record[key]:.4g}" for key in ("loss", "images_per_second")}
    if ranks.rank == 0:
        output.write_record(record, format)
    if unreadable:
        raise typer.Exit(1)


def _say_bad(path: "Entry", error: "ImageError") -> None:
    output.say(f"{path}: {error}")
