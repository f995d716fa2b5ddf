"""`mixer evaluate`: a model's accuracy on labelled images."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.choices import DEFAULT_MODEL

from .terminal import files, options, output
from .terminal.ranks import joined, refuse_several

if TYPE_CHECKING:
    from mixer_mlx.data.read import Entry
    from mixer_mlx.errors import ImageError


def evaluate(
    data: options.DataArgument,
    model: options.ModelOption = DEFAULT_MODEL,
    batch_size: options.BatchSize = 32,
    workers: options.Workers = None,
    format: options.FormatOption = "table",
    dtype: options.DTypeOption = None,
    device: options.DeviceOption = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write an HTML report with the confusion matrix and the worst mistakes.",
            metavar="FILE.html",
            dir_okay=False,
        ),
    ] = None,
    force: options.Force = False,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Ignore EXIF orientation, as published evaluations of ImageNet do."
        ),
    ] = False,
    split: options.Split = None,
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure a model's accuracy on labelled images: top-1, top-5 and loss.

    Images are turned as their EXIF data says, as in the validation of a training run and in
    `mixer predict`. Images that can't be read are reported and skipped; the exit code is then 1.
    """
    import numpy as np

    from mixer_mlx.analysis.evaluate import Outcome, evaluate_images
    from mixer_mlx.convert import load
    from mixer_mlx.data.loader import DecodedImages
    from mixer_mlx.data.read import match_classes
    from mixer_mlx.training.fingerprint import trained_on

    if report:
        refuse_several("--report works in a single process only.")
        files.check(report, force=force, what="A report is HTML", suffixes=(".html", ".htm"))
    with joined("run the command again.") as ranks:
        quiet = quiet or ranks.rank > 0
        dataset, part = options.read_split(data, split, image_column, label_column, quiet=quiet)
        with output.fetching(quiet=quiet) as listener:
            classifier = load(model, dtype=dtype, device=device, listener=listener)
        if ranks.rank == 0 and (seen := trained_on(Path(model), dataset)):
            output.say(
                f"Warning: {model} was trained on {seen:,} of these {len(dataset):,} images; for "
                "its real accuracy, evaluate on others."
            )
        classes = np.array(match_classes(dataset.classes, classifier.labels), np.int32)
        shard = dataset.take(ranks.shard(len(dataset)))
        images = DecodedImages(shard, _say_bad, memory_bytes=0, exact=exact)
        outcomes: list[Outcome] | None = [] if report else None
        metrics = evaluate_images(classifier, images, batch_size, classes, outcomes, ranks)
        unreadable = sum(ranks.all_gather(len(images.unreadable)))
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
    if format == "table":
        record |= {key: f"{record[key]:.2%}" for key in ("top1", "top5")}
        record |= {key: f"{record[key]:.4g}" for key in ("loss", "images_per_second")}
    if ranks.rank == 0:
        output.write_record(record, format)
    if unreadable:
        raise typer.Exit(1)


def _say_bad(path: "Entry", error: "ImageError") -> None:
    output.say(f"{path}: {error}")
