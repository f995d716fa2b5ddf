"""The work of `train` and `fine-tune`: prepare, train, show how it goes and how it went."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mixer_mlx.errors import ConfigError, ImageError

from ..terminal import output, sheet, signals
from ..terminal.ranks import joined, refuse_several
from .dry_run import check_plot, find_rate, write_preview
from .options import TrainingOptions, show_recipe

if TYPE_CHECKING:
    from mixer_mlx.checkpoint import ModelInfo
    from mixer_mlx.data.loader import TrainingBatches
    from mixer_mlx.data.read import Dataset, Entry
    from mixer_mlx.model import MlpMixer
    from mixer_mlx.runtime.ranks import Ranks
    from mixer_mlx.training.loop import EpochDone, Event, Validate
    from mixer_mlx.training.prepare import Estimate
    from mixer_mlx.training.recipe import Recipe
    from mixer_mlx.training.run import Run, Start

Build = Callable[[tuple[str, ...], "Recipe"], tuple["MlpMixer", "ModelInfo"]]
"""(classes, recipe) -> the model to train."""


def train(command: str, told: TrainingOptions, recipe: "Recipe", build: Build, origin: str) -> None:
    """Train what `build` gives on the images in `told.data`; or do what else was asked for."""
    if told.show_recipe:
        show_recipe(told.recipe, recipe)
        return
    if told.looks:
        refuse_several("--plan, --preview and --find-lr are for one process alone.")
    with joined("give the same command with --resume to go on from what is saved.") as ranks:
        if ranks.rank:
            told = replace(told, quiet=True, report_to=None)
        _train(command, told, recipe, build, origin, ranks)


def _train(
    command: str,
    told: TrainingOptions,
    recipe: "Recipe",
    build: Build,
    origin: str,
    ranks: "Ranks",
) -> None:
    from mixer_mlx.training import prepare
    from mixer_mlx.training.run import Start

    _check(told)
    train, val = told.images(recipe.seed)
    if not told.quiet:
        _say_classes(train, recipe)
    recipe = _bounded(recipe, len(train), ranks)
    model, info = build(train.classes, recipe)
    if ranks.size == 1:  # else the machines might come to different recipes
        recipe = _fitted(recipe, info, quiet=told.quiet)
    on_bad = _refuse if told.strict else _say_bad
    batches = prepare.training_batches(train, recipe, info.preprocess, on_bad, ranks)
    if told.looks:
        _look(told, model, info, recipe, batches)
        return
    start = Start(command, recipe, told.recipe, info, train, val, origin)
    validate = prepare.validation(val, info, recipe.batch_size, on_bad, ranks)
    _run(start, told, model, batches, validate, ranks)


def _check(told: TrainingOptions) -> None:
    """Raises what can be known to fail before any image is looked for."""
    from mixer_mlx.training import trackers

    if not (told.out or told.looks):
        raise typer.BadParameter("give the run's folder: -o RUN.")
    if told.preview:
        sheet.check(told.preview, force=told.force)
    if told.find_lr:
        check_plot(told.find_lr, force=told.force)
    trackers.check(told.report_to or ())


def _bounded(recipe: "Recipe", examples: int, ranks: "Ranks") -> "Recipe":
    """The recipe with the batch size that so many images allow."""
    size = recipe.batch_size_for(examples)
    if size < recipe.batch_size:  # nobody chose it: let it be one that can be shared
        size = size - size % ranks.size or size
    return recipe.replace(batch_size=size, batch_fraction=1.0)


def _look(
    told: TrainingOptions,
    model: "MlpMixer",
    info: "ModelInfo",
    recipe: "Recipe",
    batches: "TrainingBatches",
) -> None:
    """Do what was asked for in place of a training."""
    from mixer_mlx.training import prepare
    from mixer_mlx.training.find_lr import STEPS, try_rates

    if told.preview:
        write_preview(told.preview, batches, info.labels, quiet=told.quiet)
    elif told.find_lr:
        trials = try_rates(model, batches, recipe, info.preprocess)
        bar = steps_bar(STEPS, quiet=told.quiet)
        find_rate(told.find_lr, trials, bar, quiet=told.quiet)
    else:
        total = recipe.total_steps(len(batches))
        _print_plan(prepare.plan(model, info.preprocess, recipe, total))


def _run(
    start: "Start",
    told: TrainingOptions,
    model: "MlpMixer",
    batches: "TrainingBatches",
    validate: "Validate",
    ranks: "Ranks",
) -> None:
    """Begin the run or go on with it, on all `ranks`."""
    from mixer_mlx.training import trackers
    from mixer_mlx.training.loop import fit
    from mixer_mlx.training.run import Run

    run = Run(Path(str(told.out)), start, report=told.report)
    if ranks.size > 1:
        record = {key: json.dumps(value) for key, value in start.record().items()}
        images = {"training images": record["train"], "validation images": record["val"]}
        ranks.check_same({**images, **record})
    state = run.resumed(model) if told.resume and ranks.rank == 0 else None
    if state is None and ranks.rank == 0:
        run.begin(force=told.force or told.resume)
    if ranks.broadcast(bool(state and state.progress.end and run.complete())):
        if ranks.rank == 0:
            output.say(f"The run in {run.folder} is finished; its best model is {run.folder}/best.")
        return
    total = start.recipe.total_steps(len(batches))
    done = state.progress.step if state else 0
    if not told.quiet:
        _say_start(start, total, done)
    events = fit(
        model,
        batches,
        validate,
        start.recipe,
        preprocess=start.info.preprocess,
        folder=run.state_folder,
        resume=state,
        ranks=ranks,
    )
    with trackers.opened(
        told.report_to or (), run.folder, start.settings(), done=done, quiet=told.quiet
    ) as report:
        if ranks.rank == 0:
            events = run.follow(events, model, report)
        follow(run, events, total, ranks, quiet=told.quiet)


def _fitted(recipe: "Recipe", info: "ModelInfo", *, quiet: bool) -> "Recipe":
    from mixer_mlx.runtime import backend
    from mixer_mlx.training.prepare import MEMORY_SHARE, fitted

    found = fitted(info.config, recipe, backend.memory_bytes())
    if found.accumulation > recipe.accumulation and not quiet:
        output.say(
            f"A batch is computed in {found.accumulation} parts, to stay under {MEMORY_SHARE:.0%} "
            "of the memory (--accumulation)."
        )
    return found


def _say_classes(train: "Dataset", recipe: "Recipe") -> None:
    """The part of `mixer check` that takes no time."""
    from mixer_mlx.analysis.check import FEW, class_findings

    for finding in class_findings(train.counts()):
        if finding.kind == "few":
            output.say(f"Classes of fewer than {FEW} training images: {finding.detail}.")
        elif recipe.balance == "none":
            output.say(f"Uneven classes: {finding.detail}; --balance makes up for that.")


def _say_start(start: "Start", total: int, step: int) -> None:
    config = start.info.config
    begun = f", {step} done" if step else ""
    output.say(
        f"{len(start.train)} images of {len(start.train.classes)} classes, {len(start.val)} to "
        f"validate; {config.num_parameters:,} parameters; {total} steps of "
        f"{start.recipe.batch_size}{begun}."
    )


def _print_plan(plan: "Estimate") -> None:
    from mixer_mlx.runtime import backend
    from mixer_mlx.training.prepare import MEMORY_SHARE

    memory = backend.memory_bytes()
    print(f"steps              {plan.steps:,}")
    print(f"images per second  {plan.images_per_second:,.1f}")
    print(f"time               {timedelta(seconds=round(plan.seconds))}")
    print(f"peak memory        {plan.peak_memory / 2**30:.2f} GiB of {memory / 2**30:.1f} GiB")
    if plan.peak_memory > MEMORY_SHARE * memory:
        print(
            f"advice             over {MEMORY_SHARE:.0%} of the memory: take a smaller -b, "
            "--accumulation, or --gradient-checkpointing"
        )


def _say_bad(path: "Entry", error: ImageError) -> None:
    output.say(f"{path} is left out: {error}")


def _refuse(path: "Entry", error: ImageError) -> None:
    raise ConfigError(f"{path} can't be read: {error}") from error


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
            if any(ranks.all_gather(stopped())):  # all ranks stop after the same step
                save(event.state, run.state_folder, ranks)
                if ranks.size > 1:
                    ranks.barrier()  # rank 0 has saved
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
            f"validation images ({weights} of epoch {best.epoch + 1}); use it with "
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
