"""The work of `train` and `fine-tune`: prepare, train, and show progress and results."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mixer_mlx.errors import ConfigError, ImageError

from ..terminal import output, sheet, signals
from ..terminal.progress import bar
from ..terminal.ranks import joined, refuse_several
from .dry_run import check_plot, find_rate, write_preview
from .options import TrainingOptions, show_recipe
from .split import Splitter

if TYPE_CHECKING:
    from mixer_mlx.adapters import Base
    from mixer_mlx.data.loader import TrainingBatches
    from mixer_mlx.data.read import Dataset, Entry
    from mixer_mlx.model import MlpMixer
    from mixer_mlx.model_info import ModelInfo
    from mixer_mlx.runtime.ranks import Ranks
    from mixer_mlx.training.loop import EpochDone, Event, Validate
    from mixer_mlx.training.prepare import Estimate
    from mixer_mlx.training.recipe import Recipe
    from mixer_mlx.training.run import Run, Start

_EPOCH_LINES = 20
"""About this many validations are shown; of a longer run, every n-th."""

Build = Callable[[tuple[str, ...], "Recipe"], tuple["MlpMixer", "ModelInfo"]]
"""(classes, recipe) -> the model to train."""


def train(
    command: str, asked: TrainingOptions, recipe: "Recipe", build: Build, origin: str
) -> None:
    """Train the model of `build` on the images in `asked.data`, or do a dry run."""
    if asked.show_recipe:
        show_recipe(asked.recipe, recipe)
        return
    asked.check_usage()
    if asked.is_dry_run:
        refuse_several("--plan, --preview and --find-lr work in a single process only.")
    with joined(
        "run the same command again with --resume to continue from what is saved."
    ) as ranks:
        if ranks.rank:
            asked = replace(asked, quiet=True, report_to=None)
        _train(command, asked, recipe, build, origin, ranks)


def _train(
    command: str,
    asked: TrainingOptions,
    recipe: "Recipe",
    build: Build,
    origin: str,
    ranks: "Ranks",
) -> None:
    from mixer_mlx.training import prepare
    from mixer_mlx.training.run import Start

    _check(asked)
    splitter = Splitter(asked, ranks)
    train, val = asked.datasets(recipe.seed, splitter)
    splitter.say()
    if not asked.quiet:
        _say_classes(train, recipe)
    recipe = _bounded(recipe, len(train), ranks)
    model, info = build(train.classes, recipe)
    if ranks.size == 1:  # several machines could choose different recipes
        recipe = _fitted(recipe, info, quiet=asked.quiet)
    on_unreadable = _refuse if asked.strict else _say_bad
    batches = prepare.training_batches(train, recipe, info.preprocess, on_unreadable, ranks)
    if asked.is_dry_run:
        _dry_run(asked, model, info, recipe, batches)
        return
    fraction, part = asked.val_fraction, splitter.part
    base = _base(origin, model) if recipe.lora_rank else None
    start = Start(command, recipe, asked.recipe, info, train, val, origin, fraction, part, base)
    validate = prepare.validation(val, info, recipe.batch_size, on_unreadable, ranks)
    _run(start, asked, model, batches, validate, ranks)


def _base(origin: str, model: "MlpMixer") -> "Base":
    """What identifies the model that adapters are trained from."""
    if origin == "scratch":
        raise ConfigError("lora_rank needs a trained model; use mixer fine-tune, or omit it.")
    from mixer_mlx.adapters import Base, fingerprint
    from mixer_mlx.convert import base_of

    return Base(base_of(origin), fingerprint(model))


def _check(asked: TrainingOptions) -> None:
    """Raises errors that can be known before any image is read."""
    from mixer_mlx.training import trackers

    if asked.preview:
        sheet.check(asked.preview, force=asked.force)
    if asked.find_lr:
        check_plot(asked.find_lr, force=asked.force)
    if asked.report_to:
        trackers.check(asked.report_to)


def _bounded(recipe: "Recipe", examples: int, ranks: "Ranks") -> "Recipe":
    """The recipe with the batch size that this number of images allows."""
    size = recipe.batch_size_for(examples)
    if size < recipe.batch_size:  # not chosen by the user: make it divisible by the ranks
        size = size - size % ranks.size or size
    return recipe.replace(batch_size=size, batch_fraction=1.0)


def _dry_run(
    asked: TrainingOptions,
    model: "MlpMixer",
    info: "ModelInfo",
    recipe: "Recipe",
    batches: "TrainingBatches",
) -> None:
    """Plan, preview or test the learning rate."""
    from mixer_mlx.training import prepare
    from mixer_mlx.training.find_lr import STEPS, try_rates

    if asked.preview:
        write_preview(asked.preview, batches, info.labels, quiet=asked.quiet)
    elif asked.find_lr:  # from a head of zeros: the loss of a fitted one has no room to fall
        trials = try_rates(model, batches, recipe, info.preprocess)
        find_rate(asked.find_lr, trials, bar(quiet=asked.quiet, total=STEPS), quiet=asked.quiet)
    else:
        total = recipe.total_steps(len(batches))
        _print_plan(prepare.plan(model, info.preprocess, recipe, total))


def _run(
    start: "Start",
    asked: TrainingOptions,
    model: "MlpMixer",
    batches: "TrainingBatches",
    validate: "Validate",
    ranks: "Ranks",
) -> None:
    """Begin the run or resume it, on all `ranks`."""
    from mixer_mlx.training.run import Run

    run = Run(
        asked.out or _free_folder(asked.data), start, report=asked.report, calibrate=asked.calibrate
    )
    with run.locked() if ranks.rank == 0 else nullcontext():
        _run_locked(run, asked, model, batches, validate, ranks)


def _run_locked(
    run: "Run",
    asked: TrainingOptions,
    model: "MlpMixer",
    batches: "TrainingBatches",
    validate: "Validate",
    ranks: "Ranks",
) -> None:
    from mixer_mlx.training import trackers
    from mixer_mlx.training.course import Course
    from mixer_mlx.training.loop import fit

    start = run.start
    if ranks.size > 1:
        record = {key: json.dumps(value) for key, value in start.record().items()}
        images = {"training images": record["train"], "validation images": record["val"]}
        ranks.check_same({**images, **record})
    state = run.resumed(model) if asked.resume and ranks.rank == 0 else None
    if state is None and ranks.rank == 0:
        run.begin(force=asked.force or asked.resume)
        if asked.resume:
            output.say(f"{run.folder} has no saved state to resume from; starting anew.")
        elif not (asked.out or asked.quiet):
            output.say(f"The run goes to {run.folder} (-o).")
        _start_head(start.command, start.recipe, model, start.info, batches, quiet=asked.quiet)
    if ranks.broadcast(bool(state and state.progress.end and run.complete())):
        if ranks.rank == 0:
            output.say(f"{run.folder} is finished; use its best model with -m {run.folder}.")
        return
    total = start.recipe.total_steps(len(batches))
    done = state.progress.step if state else 0
    if not asked.quiet:
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
        asked.report_to or (), run.folder, start.settings(), done=done, quiet=asked.quiet
    ) as report:
        if ranks.rank == 0:
            events = run.follow(events, model, report)
        apart = Course(start.recipe, len(batches)).epochs_apart * len(batches)
        follow(run, events, total, -(-total // apart), ranks, quiet=asked.quiet)


def _start_head(
    command: str,
    recipe: "Recipe",
    model: "MlpMixer",
    info: "ModelInfo",
    batches: "TrainingBatches",
    *,
    quiet: bool,
) -> None:
    """Before fine-tuning by a recipe that asks for it: a head fitted to the frozen features."""
    from mixer_mlx.training.prepare import with_ridge_head

    if command != "fine-tune" or recipe.head != "ridge":
        return
    if not quiet:
        output.say("Fitting the head to the features of the training images.")
    with_ridge_head(model, info, batches.images, recipe.batch_size)


def _fitted(recipe: "Recipe", info: "ModelInfo", *, quiet: bool) -> "Recipe":
    from mixer_mlx.runtime import backend
    from mixer_mlx.runtime.tuning import TRAINING_MEMORY_FRACTION
    from mixer_mlx.training.prepare import fitted

    found = fitted(info.config, recipe, backend.memory_bytes())
    if found.accumulation > recipe.accumulation and not quiet:
        output.say(
            f"Each batch is computed in {found.accumulation} parts, to stay under "
            f"{TRAINING_MEMORY_FRACTION:.0%} of the memory (--grad-accum)."
        )
    return found


def _say_classes(train: "Dataset", recipe: "Recipe") -> None:
    """Warn about rare and uneven classes, as `mixer check` does."""
    from mixer_mlx.analysis.check import FEW, class_findings

    for finding in class_findings(train.counts()):
        if finding.kind == "few":
            output.say(f"Classes with fewer than {FEW} training images: {finding.detail}.")
        elif recipe.balance == "none":
            output.say(f"Uneven classes: {finding.detail}; --balance compensates.")


def _say_start(start: "Start", total: int, step: int) -> None:
    config = start.info.config
    begun = f", {step:,} of them done" if step else ""
    output.say(
        f"{len(start.train):,} training and {len(start.val):,} validation images of "
        f"{len(start.train.classes):,} classes; {config.num_parameters:,} parameters; {total:,} "
        f"steps of {start.recipe.batch_size} images{begun}."
    )


def _print_plan(plan: "Estimate") -> None:
    from mixer_mlx.runtime import backend
    from mixer_mlx.runtime.tuning import TRAINING_MEMORY_FRACTION

    memory = backend.memory_bytes()
    print(f"steps              {plan.steps:,}")
    print(f"images per second  {plan.images_per_second:,.1f}")
    print(f"time               {timedelta(seconds=round(plan.seconds))}")
    print(f"peak memory        {plan.peak_memory / 2**30:.2f} GiB of {memory / 2**30:.1f} GiB")
    if plan.peak_memory > TRAINING_MEMORY_FRACTION * memory:
        print(
            f"advice             over {TRAINING_MEMORY_FRACTION:.0%} of the memory: use a smaller "
            "-b, --grad-accum, or --gradient-checkpointing"
        )


def _say_bad(path: "Entry", error: ImageError) -> None:
    output.say(f"Skipped {path}: {error}")


def _refuse(path: "Entry", error: ImageError) -> None:
    raise ConfigError(f"{path} can't be read: {error}") from error


def follow(
    run: "Run",
    events: Iterator["Event"],
    total: int,
    validations: int,
    ranks: "Ranks",
    *,
    quiet: bool,
) -> None:
    """Show a run as it goes, and its result; Ctrl-C and SIGTERM save it first."""
    from mixer_mlx.training.loop import EpochDone, StepDone, save
    from mixer_mlx.training.pages import REPORT_FILE

    every, count = -(-validations // _EPOCH_LINES), 0
    with signals.deferred() as stopped, bar(quiet=quiet, total=total) as show:
        for event in events:
            if isinstance(event, StepDone):
                rate = f"{event.images_per_second:,.0f} images/s"
                show(event.step, f"{event.step}/{total}  loss {event.loss:.3f}  {rate}")
            elif isinstance(event, EpochDone):
                end = event.state.progress.end
                if (count % every == 0 or end) and not quiet:
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
    best = run.log.best()
    if best and not quiet:
        output.say(f"Wrote {run.folder}: {best.where}, validation accuracy {best.accuracy}.")
        report = f"open {run.folder / REPORT_FILE}, or " if run.report else ""
        output.say(f"Next: {report}mixer predict IMAGE -m {run.folder}")


def _free_folder(data: str) -> Path:
    """runs/NAME-1, or the first number that is free; NAME is that of the data."""
    name = Path(data.rstrip("/")).name.partition("@")[0].partition(".")[0] or "run"
    numbers = itertools.count(1)
    return next(path for n in numbers if not (path := Path("runs", f"{name}-{n}")).exists())


def _epoch_line(event: "EpochDone", total: int) -> str:
    parts = [f"epoch {event.epoch + 1}", f"step {event.step} of {total}"]
    if not event.step:
        parts = ["fitted head, before training"]
    for name, metrics in (("validation", event.raw), ("EMA", event.ema)):
        if metrics:
            parts.append(f"{name} {metrics.top1:.1%} (loss {metrics.loss:.3f})")
    return "  ".join([*parts, "best so far"] if event.best else parts)
