"""`--preview`: the first batch of a training, as the model will see it."""

from pathlib import Path
from typing import TYPE_CHECKING

from mixer_mlx.runtime.atomic import written_file

from ..terminal import output, sheet

if TYPE_CHECKING:
    from mixer_mlx.data.loader import TrainingBatches


def write_preview(
    path: Path, batches: "TrainingBatches", classes: tuple[str, ...], *, quiet: bool
) -> None:
    """Draw the first batch, or the first page of it."""
    from mixer_mlx.analysis.batch_sheet import batch_sheet

    pixels, labels = next(batches.epoch(0))
    shown = pixels[: sheet.PAGE]
    page = batch_sheet(shown, labels, classes)
    with written_file(path) as temporary:
        page.save(temporary, "PNG")
    if not quiet:
        output.say(
            f"Wrote {path}: {len(shown)} of the {len(pixels)} pictures of the first batch; "
            "nothing was trained."
        )
