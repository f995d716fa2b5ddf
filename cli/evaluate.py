"""`mixer evaluate`: how often is a model right?"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.cli import options, output

if TYPE_CHECKING:
    from mixer_mlx.errors import ImageError


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder that holds a folder of pictures for each class.", metavar="DATA"
        ),
    ],
    model: options.Model = options.DEFAULT_MODEL,
    batch_size: Annotated[
        int, typer.Option("-b", "--batch-size", min=1, help="Pictures computed at once.")
    ] = 32,
    format: options.FormatOption = options.Format.TABLE,
    dtype: options.DTypeOption = None,
    device: options.DeviceOption = None,
    quiet: options.Quiet = False,
) -> None:
    """Show a model's accuracy on labelled pictures: top-1, top-5, loss, images per second.

    Pictures are decoded in full and not turned by their EXIF orientation, as in the published
    evaluations. Those that can't be read are named and left out, and the exit code is 1.
    """
    import numpy as np

    from mixer_mlx.analysis.evaluate import evaluate as run
    from mixer_mlx.convert import load
    from mixer_mlx.data.dataset import match_classes, read_folder
    from mixer_mlx.data.loader import EvaluationBatches, Pictures

    dataset = read_folder(data)
    with output.fetching(quiet=quiet) as listeners:
        classifier = load(model, dtype=dtype, device=device, **listeners)
    classes = np.array(match_classes(dataset.classes, classifier.labels), np.int32)
    pictures = Pictures(dataset, _say_bad, memory_bytes=0, exact=True)
    batches = EvaluationBatches(pictures, classifier.preprocess, batch_size)
    metrics = run(classifier.logits, batches, classes)
    record = {"model": model, "data": str(data), **asdict(metrics), "unreadable": len(pictures.bad)}
    if format is options.Format.TABLE:
        record |= {key: f"{record[key]:.2%}" for key in ("top1", "top5")}
        record |= {key: f"{record[key]:.4g}" for key in ("loss", "images_per_second")}
    output.write_record(record, format)
    if pictures.bad:
        raise typer.Exit(1)


def _say_bad(path: Path, error: "ImageError") -> None:
    output.say(f"{path}: {error}")
