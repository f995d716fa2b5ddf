"""`--preview` and `--find-lr`: looking at a training without running it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from mixer_mlx.errors import TrainingError
from mixer_mlx.runtime.atomic import written_file

from ..terminal import files, output, sheet
from ..terminal.progress import Bar

if TYPE_CHECKING:
    from mixer_mlx.data.loader import TrainingBatches
    from mixer_mlx.training.find_lr import Trial


def check_plot(plot: Path, *, force: bool) -> None:
    """Raises MixerError for a plot that can't be written or may not be overwritten."""
    from mixer_mlx.training.find_lr import table

    files.check(plot, force=force, what="The plot is a PNG", suffixes=(".png",))
    files.check_free(table(plot), force=force)


def find_rate(
    plot: Path,
    trials: "Iterator[Trial]",
    bar: AbstractContextManager[Bar],
    *,
    quiet: bool,
) -> None:
    """Run the range test, write its results, and print the suggested rate."""
    from mixer_mlx.training.find_lr import SLIGHT, fall, save, steepest, suggested, table

    done: list[Trial] = []
    with bar as show:
        for trial in trials:
            done.append(trial)
            show(len(done), f"learning rate {trial.lr:.1e}  loss {trial.smoothed:.3f}")
    if not done:
        raise TrainingError("The loss isn't finite before the first update; check the model.")
    save(done, plot)
    if not quiet:
        output.say(
            f"Wrote {plot} and {table(plot)}: {len(done)} steps, with learning rates from "
            f"{done[0].lr:.1e} to {done[-1].lr:.1e}; nothing was trained."
        )
    lr = suggested(done)
    if lr is None:
        raise TrainingError(
            f"The loss never fell, so no learning rate is suggested; look at {plot}."
        )
    if fall(done) < SLIGHT:
        output.say(
            f"The smoothed loss fell by only {fall(done):.2%}; a larger batch (-b) gives a clearer "
            "answer."
        )
    print(f"suggested learning rate  {lr:.2e}")
    if (most := steepest(done)) is not None:
        print(f"loss falls most at       {most:.2e}")


def write_preview(
    path: Path, batches: "TrainingBatches", classes: tuple[str, ...], *, quiet: bool
) -> None:
    """Draw the first batch, or its first page."""
    from mixer_mlx.analysis.sheets import batch_sheet

    pixels, labels = next(batches.epoch(0))
    shown = pixels[: sheet.PAGE]
    page = batch_sheet(shown, labels, classes)
    with written_file(path) as temporary:
        page.save(temporary, "PNG")
    if not quiet:
        output.say(
            f"Wrote {path}: {len(shown)} of the {len(pixels)} images of the first batch; "
            "nothing was trained."
        )
