"""A run in progress, as the terminal shows it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..terminal import output, signals
from ..terminal.progress import bar

if TYPE_CHECKING:
    from mixer_mlx.runtime.ranks import Ranks
    from mixer_mlx.training.loop import EpochDone, Event
    from mixer_mlx.training.run import Run

_EPOCH_LINES = 20
"""About this many validations are shown; of a longer run, every n-th."""


def follow(
    run: "Run",
    events: Iterator["Event"],
    total: int,
    validations: int,
    ranks: "Ranks",
    *,
    quiet: bool,
) -> None:
    """Show a run as it goes; Ctrl-C and SIGTERM save it first."""
    from mixer_mlx.training.loop import EpochDone, StepDone, save

    every, count = -(-validations // _EPOCH_LINES), 0
    with signals.deferred() as stopped, bar(quiet=quiet, total=total) as show:
        for event in events:
            if isinstance(event, StepDone):
                rate = f"{event.images_per_second:,.0f} images/s"
                show(event.step, f"{event.step}/{total}  loss {event.loss:.3f}  {rate}")
            elif isinstance(event, EpochDone):
                end = event.state.progress.end
                if event.raw and (count % every == 0 or end) and not quiet:
                    output.say(_epoch_line(event, total))
                count += 1
                if end == "stopped" and not quiet:
                    patience = event.state.recipe.patience
                    output.say(
                        f"Stopped after {event.step} of at most {total} steps, as {patience} "
                        "validations found nothing better (--patience)."
                    )
            if any(ranks.all_gather(stopped())):  # all ranks stop after the same step
                save(event.state, run.state_folder, ranks)
                if ranks.size > 1:
                    ranks.barrier()  # rank 0 has saved
                    signals.heed()
                interrupted = signals.Interrupted("Interrupted.")
                interrupted.add_note(
                    f"Step {event.state.progress.step} of {total} is saved; run the same command "
                    "with --resume to continue."
                )
                raise interrupted


def _epoch_line(event: "EpochDone", total: int) -> str:
    parts = [f"epoch {event.epoch + 1}", f"step {event.step} of {total}"]
    if not event.step:
        parts = ["fitted head, before training"]
    for name, metrics in (
        ("validation", event.raw),
        ("EMA", event.ema),
        ("halfway to the start", event.halfway),
    ):
        if metrics:
            parts.append(f"{name} {metrics.top1:.1%} (loss {metrics.loss:.3f})")
    shows_best = event.best and not event.halfway  # at the end a line of its own says what is kept
    return "  ".join([*parts, "best so far"] if shows_best else parts)
