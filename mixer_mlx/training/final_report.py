"""A run's `report.html`: how its best model does on the validation pictures."""

import json
from collections.abc import Sequence
from pathlib import Path

from mixer_mlx import checkpoint
from mixer_mlx.analysis.evaluate import Outcome, evaluate
from mixer_mlx.analysis.report import Report, describe, readable
from mixer_mlx.analysis.report import write as write_page
from mixer_mlx.classify import Classifier
from mixer_mlx.data.loader import EvaluationBatches, Pictures
from mixer_mlx.data.read import Dataset

from .recipe import Recipe

REPORT_FILE = "report.html"


def write_report(
    folder: Path, val: Dataset, recipe: Recipe, facts: Sequence[tuple[str, str]]
) -> None:
    """Validate `folder`/best once more, to see what it makes of each picture, and write the page.

    Pictures are decoded again. Raises MixerError.
    """
    info = checkpoint.read_info(folder / "best")
    classifier = Classifier(checkpoint.load(folder / "best", info=info), info)
    # What can't be read was named when it was validated on.
    pictures = Pictures(val, lambda *_: None, memory_bytes=0)
    outcomes: list[Outcome] = []
    batches = EvaluationBatches(pictures, info.preprocess, recipe.batch_size)
    metrics = evaluate(classifier.logits, batches, outcomes=outcomes)
    curves = folder / "curves.png"
    page = Report(
        title=folder.absolute().name,
        facts=[*describe(info, metrics, pictures), *facts],
        labels=info.labels,
        entries=readable(pictures),
        outcomes=outcomes,
        curves=curves.read_bytes() if curves.exists() else None,
        details=[("Recipe", json.dumps(recipe.to_dict(), indent=2))],
    )
    write_page(folder / REPORT_FILE, page)
