"""`mixer evaluate`: a model's accuracy on labelled images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixer_mlx.choices import DEFAULT_MODEL

from .terminal import files, options, output
from .terminal.ranks import joined, refuse_several

if TYPE_CHECKING:
    from mixer_mlx.analysis.evaluate import Metrics
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
    real: Annotated[
        Path | None,
        typer.Option(
            "--real",
            help="Also count by ImageNet's ReaL labels: google-research/reassessed-imagenet's "
            "real.json.",
            metavar="FILE.json",
            dir_okay=False,
        ),
    ] = None,
    only_classes: Annotated[
        bool,
        typer.Option(
            "--only-classes",
            help="Compare only the classes of the data, as evaluations on ImageNet-A and -R do.",
        ),
    ] = False,
    map: Annotated[
        Path | None,
        typer.Option(
            "--map",
            help="File that maps the data's classes to the model's: lines of CLASS,LABEL, or JSON.",
            metavar="FILE",
            dir_okay=False,
        ),
    ] = None,
    split: options.Split = None,
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure a model's accuracy on labelled images: top-1, top-5 and loss.

    Images are turned as their EXIF data says, as in the validation of a training run and in
    `mixer predict`. Images that can't be read are reported and skipped; the exit code is then 1.

    ImageNet's validation images are read in folders by WordNet id, or in one folder with val.txt
    or another of its label files in it or beside it.
    """
    import numpy as np

    from mixer_mlx.analysis.evaluate import Outcome, evaluate_images
    from mixer_mlx.analysis.published import real_top1
    from mixer_mlx.analysis.report import readable
    from mixer_mlx.convert import load
    from mixer_mlx.data import imagenet
    from mixer_mlx.data.loader import DecodedImages
    from mixer_mlx.data.read import match_classes
    from mixer_mlx.labels import distinct, read_map
    from mixer_mlx.training.fingerprint import trained_on

    names = read_map(map) if map else {}
    right_labels = imagenet.read_real(real) if real else []
    if real:
        refuse_several("--real works in a single process only.")
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
        called = [names.get(name, name) for name in dataset.classes]
        classes = np.array(match_classes(called, classifier.labels), np.int32)
        outputs = imagenet.outputs(classifier.labels, classifier.config.num_classes) if real else []
        shard = dataset.take(ranks.shard(len(dataset)))
        images = DecodedImages(shard, _say_bad, memory_bytes=0, exact=exact)
        outcomes: list[Outcome] | None = [] if report or real else None
        only = classes if only_classes else None
        metrics = evaluate_images(classifier, images, batch_size, classes, outcomes, ranks, only)
        unreadable = sum(ranks.all_gather(len(images.unreadable)))
    if report and outcomes:
        from mixer_mlx.analysis.heatmap import maps_of_mistakes
        from mixer_mlx.analysis.report import Report, describe, write

        facts = [
            *describe(classifier.info, metrics, unreadable),
            ("data", f"{data} {part}".strip()),
        ]
        entries = readable(images)
        maps = maps_of_mistakes(classifier, entries, outcomes, exact=exact)
        labels = distinct(classifier.labels)
        calibration = classifier.info.calibration
        write(
            report,
            Report(model, facts, labels, entries, outcomes, maps=maps, calibration=calibration),
        )
    record = {
        "model": model,
        "data": data,
        "split": part or None,
        **_accuracy(metrics),
        **_published(model, metrics, len({*classes.tolist()}), classifier.config.num_classes),
        "unreadable": unreadable,
    }
    if real and outcomes:
        found, count = real_top1(readable(images), outcomes, right_labels, outputs)
        record |= {"real_top1": found, "real_images": count}
    if format == "table":
        record = _rounded(record)
    if ranks.rank == 0:
        output.write_record(record, format)
    if unreadable:
        raise typer.Exit(1)


def _accuracy(metrics: "Metrics") -> dict[str, object]:
    from mixer_mlx.analysis.interval import wilson

    low, high = wilson(metrics.top1 * metrics.images, metrics.images)
    values = metrics.to_dict()
    return {"top1": values.pop("top1"), "top1_low": low, "top1_high": high, **values}


def _rounded(record: dict[str, Any]) -> dict[str, object]:
    """For people: percentages, and an interval behind its number."""
    shown: dict[str, object] = {}
    for key, value in record.items():
        if key in ("top1", "top5", "real_top1", "published_top1", "difference"):
            sign = "+" if key == "difference" else ""
            shown[key] = f"{value:{sign}.2%}"
            if f"{key}_low" in record:
                low, high = (record[f"{key}_{end}"] for end in ("low", "high"))
                shown[key] = f"{shown[key]} (95 %: {low:{sign}.1%} to {high:{sign}.1%})"
        elif not key.endswith(("_low", "_high")):
            shown[key] = f"{value:.4g}" if isinstance(value, float) else value
    return shown


def _published(model: str, metrics: "Metrics", covered: int, num_classes: int) -> dict[str, object]:
    """The published figure of the catalogue, and the difference with its 95 % interval."""
    from mixer_mlx.analysis.published import compare, published_entry

    entry = published_entry(model, covered, num_classes)
    if entry is None or entry.top1 is None:
        return {}
    found = compare(metrics.top1, metrics.images, entry.top1 / 100, str(entry.accuracy_source))
    return {
        "published_top1": found.published,
        "published_by": found.source,
        "difference": found.difference,
        "difference_low": found.low,
        "difference_high": found.high,
    }


def _say_bad(path: "Entry", error: "ImageError") -> None:
    output.say(f"{path}: {error}")
