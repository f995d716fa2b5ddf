"""The work of `train` and `fine-tune`: prepare, train, and show progress and results."""

import itertools
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mixer_mlx.errors import ConfigError, ImageError

from ..terminal import output, sheet
from ..terminal.progress import bar
from ..terminal.ranks import joined, refuse_several
from .curve import show_curve
from .dry_run import check_plot, find_rate, write_preview
from .follow import follow
from .options import TrainingOptions, show_recipe
from .split import Splitter

if TYPE_CHECKING:
    from mixer_mlx.adapters import Base
    from mixer_mlx.data.loader import TrainingBatches
    from mixer_mlx.data.read import Dataset, Entry
    from mixer_mlx.model import MlpMixer
    from mixer_mlx.model_info import ModelInfo
    from mixer_mlx.runtime.ranks import Ranks
    from mixer_mlx.training.loop import Validate
    from mixer_mlx.training.prepare import Estimate
    from mixer_mlx.training.recipe import Recipe
    from mixer_mlx.training.run import Run
    from mixer_mlx.training.start import Start
    from mixer_mlx.training.state import State

Build = Callable[[tuple[str, ...], "Recipe"], tuple["MlpMixer", "ModelInfo"]]
"""(classes, recipe) -> the model to train."""


def train(
    command: str,
    asked: TrainingOptions,
    recipe: "Recipe",
    build: Build,
    origin: str,
    *,
    curve: bool = False,
) -> None:
    """Train the model of `build` on the images in `asked.data`, or do a dry run.

    `curve`: with a learning curve.
    """
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
        _train(command, asked, recipe, build, origin, ranks, curve=curve)


def _train(
    command: str,
    asked: TrainingOptions,
    recipe: "Recipe",
    build: Build,
    origin: str,
    ranks: "Ranks",
    *,
    curve: bool,
) -> None:
    check(asked)
    splitter = Splitter(asked, ranks)
    train, val = asked.datasets(recipe.seed, splitter)
    splitter.say()
    if not asked.quiet:
        say_classes(train, recipe)
    fraction, part = asked.val_fraction, splitter.part
    made = prepared(command, asked, recipe, build, origin, (train, val), ranks)
    if asked.is_dry_run:
        _dry_run(asked, made)
        return
    start = replace(made.start, val_fraction=fraction, part=part)
    _run(replace(made, start=start), asked, ranks, curve=curve)


@dataclass(frozen=True)
class Prepared:
    """What `fit` takes, for a run with this start."""

    start: "Start"
    model: "MlpMixer"
    batches: "TrainingBatches"
    validate: "Validate | None"


def prepared(
    command: str,
    asked: TrainingOptions,
    recipe: "Recipe",
    build: Build,
    origin: str,
    datasets: "tuple[Dataset, Dataset]",
    ranks: "Ranks",
) -> Prepared:
    """Build the model for these training and validation images (perhaps none), and read them."""
    from mixer_mlx.training import prepare
    from mixer_mlx.training.start import Start

    train, val = datasets
    recipe = _bounded(recipe, len(train), ranks)
    model, info = build(train.classes, recipe)
    if ranks.size == 1:  # several machines could choose different recipes
        recipe = _fitted(recipe, info, quiet=asked.quiet)
    on_unreadable = _refuse if asked.strict else _say_bad
    batches = prepare.training_batches(train, recipe, info.preprocess, on_unreadable, ranks)
    validate = prepare.validation(val, info, recipe.batch_size, on_unreadable, ranks)
    base = _base(origin, model) if recipe.lora_rank else None
    start = Start(command, recipe, asked.recipe, info, train, val, origin, base=base)
    start = replace(start, data=asked.where())
    return Prepared(start, model, batches, validate if len(val) else None)


def _base(origin: str, model: "MlpMixer") -> "Base":
    """What identifies the model that adapters are trained from."""
    if origin == "scratch":
        raise ConfigError("lora_rank needs a trained model; use mixer fine-tune, or omit it.")
    from mixer_mlx.adapters import Base, fingerprint
    from mixer_mlx.convert import base_of

    return Base(base_of(origin), fingerprint(model))


def check(asked: TrainingOptions) -> None:
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


def _dry_run(asked: TrainingOptions, made: Prepared) -> None:
    """Plan, preview or test the learning rate."""
    from mixer_mlx.training import prepare
    from mixer_mlx.training.find_lr import STEPS, try_rates

    recipe, info, batches = made.start.recipe, made.start.info, made.batches
    if asked.preview:
        write_preview(asked.preview, batches, info.labels, quiet=asked.quiet)
    elif asked.find_lr:  # from a head of zeros: the loss of a fitted one has no room to fall
        trials = try_rates(made.model, batches, recipe, info.preprocess)
        find_rate(asked.find_lr, trials, bar(quiet=asked.quiet, total=STEPS), quiet=asked.quiet)
    else:
        total = recipe.total_steps(len(batches))
        _print_plan(prepare.plan(made.model, info.preprocess, recipe, total))


def _run(made: Prepared, asked: TrainingOptions, ranks: "Ranks", *, curve: bool) -> None:
    """Begin the run or resume it, on all `ranks`."""
    from mixer_mlx.training.run import Run

    folder = asked.out or free_folder(asked.data)
    run = Run(folder, made.start, report=asked.report, calibrate=asked.calibrate)
    with run.locked() if ranks.rank == 0 else nullcontext():
        trained = run_locked(run, asked, made, ranks, curve=curve)
        if ranks.rank == 0 and not trained:
            say_finished(run)
        elif not asked.quiet:
            _say_done(run)


def run_locked(
    run: "Run", asked: TrainingOptions, made: Prepared, ranks: "Ranks", *, curve: bool = False
) -> bool:
    """Train, from the start or from what is saved; False if the run was complete."""
    start = run.start
    if ranks.size > 1:
        record = {key: json.dumps(value) for key, value in start.record().items()}
        images = {"training images": record["train"], "validation images": record["val"]}
        ranks.check_same({**images, **record})
    state = run.resumed(made.model) if asked.resume and ranks.rank == 0 else None
    if state is None and ranks.rank == 0:
        run.begin(force=asked.force or asked.resume)
        if asked.resume:
            output.say(f"{run.folder} has no saved state to resume from; starting anew.")
        elif not (asked.out or asked.quiet):
            output.say(f"The run goes to {run.folder} (-o).")
    if ranks.broadcast(bool(state and state.progress.end and run.complete())):
        return False
    if curve and state is None and ranks.rank == 0:
        show_curve(run, made.model, quiet=asked.quiet)
    fit_run(run, asked, made, state, ranks)
    return True


def fit_run(
    run: "Run", asked: TrainingOptions, made: Prepared, state: "State | None", ranks: "Ranks"
) -> None:
    """Train from a state, or from the start, into a folder that was begun."""
    from mixer_mlx.training import trackers
    from mixer_mlx.training.course import Course
    from mixer_mlx.training.loop import fit

    recipe, batches = made.start.recipe, made.batches
    if state is None and ranks.rank == 0:
        start_head(made, quiet=asked.quiet)
    total = recipe.total_steps(len(batches))
    done = state.progress.step if state else 0
    if not asked.quiet:
        _say_start(made.start, total, done)
    events = fit(
        made.model,
        batches,
        made.validate,
        recipe,
        preprocess=made.start.info.preprocess,
        folder=run.state_folder,
        resume=state,
        ranks=ranks,
    )
    with trackers.opened(
        asked.report_to or (), run.folder, made.start.settings(), done=done, quiet=asked.quiet
    ) as report:
        if ranks.rank == 0:
            events = run.follow(events, made.model, report)
        apart = Course(recipe, len(batches)).epochs_apart * len(batches)
        follow(run, events, total, -(-total // apart), ranks, quiet=asked.quiet)


def say_finished(run: "Run") -> None:
    """Say that there is nothing left to resume."""
    output.say(f"{run.folder} is finished; use its best model with -m {run.folder}.")


def start_head(made: Prepared, *, quiet: bool) -> None:
    """Before fine-tuning by a recipe that asks for it: a head fitted to the frozen features."""
    from mixer_mlx.training.prepare import takes_ridge_head, with_ridge_head

    start = made.start
    if start.command != "fine-tune" or start.recipe.head != "ridge":
        return
    if not takes_ridge_head(made.model, len(start.info.labels)):
        return
    if not quiet:
        output.say("Fitting the head to the features of the training images.")
    with_ridge_head(made.model, start.info, made.batches.images, start.recipe.batch_size)


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


def say_classes(train: "Dataset", recipe: "Recipe") -> None:
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
    val = f"and {len(start.val):,} validation " if len(start.val) else ""
    output.say(
        f"{len(start.train):,} training {val}images of "
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


def _say_done(run: "Run") -> None:
    if best := run.log.best():
        output.say(f"Wrote {run.folder}: {best.where}, validation accuracy {best.accuracy}.")
        say_next(run)


def say_next(run: "Run") -> None:
    """What to do with a finished run."""
    from mixer_mlx.training.pages import REPORT_FILE

    report = f"open {run.folder / REPORT_FILE}, or " if run.report else ""
    output.say(f"Next: {report}mixer predict IMAGE -m {run.folder}")


def free_folder(data: str) -> Path:
    """runs/NAME-1, or the first number that is free; NAME is that of the data."""
    name = Path(data.rstrip("/")).name.partition("@")[0].partition(".")[0] or "run"
    numbers = itertools.count(1)
    return next(path for n in numbers if not (path := Path("runs", f"{name}-{n}")).exists())
