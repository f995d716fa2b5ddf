"""What is seen of a training while it goes on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..terminal import output, signals

if TYPE_CHECKING:
    from mixer_mlx.runtime.ranks import Ranks
    from mixer_mlx.training.loop import EpochDone, Event
    from mixer_mlx.training.run import Run


def follow(
    run: "Run", events: Iterator["Event"], total: int, ranks: "Ranks", *, quiet: bool
) -> None:
    """Show a run as it goes; Ctrl-C and SIGTERM save it first. Says in the end what there is."""
    from mixer_mlx.training.loop import EpochDone, StepDone, save

    with signals.deferred() as stopped, steps_bar(total, quiet=quiet) as show:
        for event in events:
            if isinstance(event, StepDone):
                show(event.step, f"loss {event.loss:.3f}  {event.images_per_second:,.0f} images/s")
            elif isinstance(event, EpochDone) and not quiet:
                output.say(_epoch_line(event, total))
            if ranks.agree(stopped()):
                save(event.state, run.state_folder, ranks)
                if ranks.size > 1:
                    ranks.share(None)  # all have got here, and rank 0 has saved
                    signals.heed()
                interrupted = signals.Interrupted("Interrupted.")
                interrupted.add_note(
                    f"Step {event.state.progress.step} of {total} is saved; give the same command "
                    "with --resume to go on."
                )
                raise interrupted
    best = run.log.best()
    if best and not quiet:
        weights = "average" if best.weights == "ema" else "raw weights"
        output.say(
            f"Wrote {run.folder}: its best model has top-1 {best.metrics['top1']:.1%} on the "
            f"validation pictures ({weights} of epoch {best.epoch + 1}); use it with "
            f"-m {run.folder}."
        )


@contextmanager
def steps_bar(total: int, *, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """Steps done, a text and the time left, on stderr where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), Left())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("", total=total)
        yield lambda step, text: bars.update(bar, completed=step, description=text)


def _epoch_line(event: "EpochDone", total: int) -> str:
    parts = [f"epoch {event.epoch + 1}", f"step {event.step} of {total}"]
    for name, metrics in (("validation", event.raw), ("average", event.ema)):
        if metrics:
            parts.append(f"{name} {metrics.top1:.1%} (loss {metrics.loss:.3f})")
    return "  ".join([*parts, "best so far"] if event.best else parts)
