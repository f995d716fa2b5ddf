"""`fit`: the training loop, as a stream of events."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import mlx.core as mx
import numpy as np
from mlx.optimizers import Optimizer
from numpy.typing import NDArray

from mixer_mlx.analysis.evaluate import Metrics
from mixer_mlx.checks import check_whole
from mixer_mlx.choices import WeightsName
from mixer_mlx.data.mixing import Labels
from mixer_mlx.errors import ConfigError, TrainingError
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model import MlpMixer
from mixer_mlx.runtime import worker
from mixer_mlx.runtime.backend import gpu_is_default
from mixer_mlx.runtime.ranks import ALONE, Ranks

from .course import Course, Schedule, as_metrics
from .loss import LossFunction
from .recipe import Recipe
from .state import State
from .step import REPORT, make_step

# Below this, the loss scale isn't why a float16 gradient overflows.
LOWEST_LOSS_SCALE = 2.0**-10

Validate = Callable[[MlpMixer], Metrics | Mapping[str, float]]


class Batches(Protocol):
    """Training data. The batches depend only on (epoch, start), not on what was read before."""

    def __len__(self) -> int:
        """Batches per epoch, at least one."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[NDArray[np.uint8], Labels]]:
        """Pixels (N, H, W, C) and labels (N,), from batch `start` of the epoch on."""


@dataclass(frozen=True)
class Event:
    """Something that happened in a run; `state` is the run's current state, ready to be saved."""

    state: State


@dataclass(frozen=True)
class StepDone(Event):
    """One update: `step` counts from 1, `epoch` from 0. The next may be running already.

    `loss` and `accuracy` (0 to 1) are the batch's, before the update; `gradient_norm` is from
    before clipping; `peak_memory` is in bytes. `skipped`: the gradient overflowed in float16, and
    the weights are unchanged.
    """

    step: int
    epoch: int
    loss: float
    accuracy: float
    lr: float
    gradient_norm: float
    images_per_second: float
    peak_memory: int
    skipped: bool


@dataclass(frozen=True)
class EpochDone(Event):
    """The end of an epoch, or of the run, with the validation metrics; `epoch` counts from 0.

    Before the first step, `step` is 0 and `epoch` -1. `ema` is None for a recipe without EMA, and
    before the first step. `best` names the weights that are the best so far, if they are new
    (`State.fill` puts them into a model), else None. `halfway` and `start` are measured at the end
    of a run that chooses among them (`Recipe.best_by`).
    """

    step: int
    epoch: int
    raw: Metrics | None
    ema: Metrics | None
    best: WeightsName | None
    halfway: Metrics | None = None
    start: Metrics | None = None


@dataclass(frozen=True)
class Saved(Event):
    """The state after this step was saved to `folder`."""

    step: int
    folder: Path


@dataclass(frozen=True)
class Done(Event):
    """The run is complete, or was `stopped` early; the model has the last raw weights."""

    step: int
    stopped: bool


def fit(
    model: MlpMixer,
    train: Batches,
    validate: Validate | None,
    recipe: Recipe,
    *,
    preprocess: Preprocess,
    folder: str | os.PathLike[str] | None = None,
    resume: State | None = None,
    extend: int = 0,
    loss: LossFunction | None = None,
    optimizer: Optimizer | None = None,
    schedule: Schedule | None = None,
    score: str = "top1",
    ranks: Ranks = ALONE,
) -> Iterator[Event]:
    """Train a model in place, in float32, yielding events; to stop early, stop iterating.

    `preprocess` normalises the pixels. `validate` is called after each epoch, or those that the
    recipe's `validate_every` leaves, with the raw weights, and again with the EMA; for a head that
    starts as the ridge solution also before the first step. The state is saved to `folder` after
    validation and every `recipe.save_every` steps.
    `resume` is a saved state: on the CPU, in float32, the run continues bit for bit as if it had
    never stopped. `extend` makes a resumed run, perhaps a complete one, longer by so many epochs,
    or steps if the recipe counts these: `resume.recipe` is changed, and the schedule is that of the
    longer run from here on, so the weights aren't those of a run that was as long from the start.

    In place of the recipe's: `loss`, from float32 logits (N, K) and the batch's labels or targets
    (N, ...) to (N,); an `optimizer` of `mlx.optimizers`, with its own rate unless there is a
    `schedule`, which gets each gradient after clipping; `schedule`, from (step, total steps) to the
    learning rate. They aren't saved: a resumed run must be given the same again.

    `score` names the metric of `validate` by which weights are the best, the highest, or with a "-"
    before its name the lowest; top-1 is followed by the loss. `validate` may return metrics of any
    names, which become the `scores` of the events' Metrics.

    Parameters that `model.freeze` froze aren't trained.

    With several `ranks`, all start from rank 0's state, which rank 0 saves; `train` yields each
    rank's rows of the batches. All get the same events, except for times and memory.

    Raises TrainingError if the loss isn't finite (the state is then that before the step), if the
    data changed since `resume` was saved, and if the state can't be saved; ConfigError for what
    doesn't fit together.
    """
    worker.check_process()
    _check_preprocess(preprocess, model)
    state = (resume or State.start(model, recipe, optimizer)).shared(ranks)
    if extend:
        recipe = _extended(state, recipe, extend, len(train))
    state = _checked(state, recipe, len(train), optimizer)
    course = Course(recipe, len(train), schedule, own_rate=optimizer is not None)
    step = make_step(model.config, recipe, preprocess, ranks, loss=loss, own=optimizer)
    ahead = gpu_is_default()  # a CPU computes nothing else during a step
    try:
        if course.validates_first(state.progress) and validate is not None:
            yield _validated(state, model, validate, course, score)
        while state.progress.end is None:
            epoch = state.progress.epoch
            last = min(course.end(state.progress), (epoch + 1) * len(train))
            running: _PendingStep | None = None
            for pixels, labels in _batches(train, state, last):
                number = state.progress.step
                lr = course.rate(state.progress)
                images = len(pixels) * ranks.size
                before, running = (
                    running,
                    _PendingStep(number, epoch, lr or 0.0, images),
                )
                # No other reference to the old arrays: the new ones reuse their memory.
                state.arrays, running.report = step(
                    state.arrays, state.frozen, pixels, labels, number, lr
                )
                if optimizer and lr is None:
                    running.lr = float(optimizer.learning_rate.item())
                state.progress = dataclasses.replace(state.progress, step=number + 1)
                mx.async_eval(state.arrays, running.report)
                if before:
                    event = before.event(state)
                    running.start = time.perf_counter()  # it had waited for the previous step
                    yield event
                saves = recipe.save_every and (number + 1) % recipe.save_every == 0
                if saves or not ahead:
                    yield running.event(state)
                    running = None
                if folder and saves:
                    yield save(state, folder, ranks)
            if running:
                yield running.event(state)
            if not course.validates(state.progress):
                state.progress = dataclasses.replace(state.progress, epoch=epoch + 1)
                continue
            yield _validated(state, model, validate, course, score)
            if folder:
                yield save(state, folder, ranks)
        state.fill(model)
        yield Done(state, state.progress.step, stopped=state.progress.end == "stopped")
    finally:
        state.fill(model)


def _check_preprocess(preprocess: Preprocess, model: MlpMixer) -> None:
    config = model.config
    if (preprocess.image_size, preprocess.in_channels) != (config.image_size, config.in_channels):
        raise ConfigError(
            f"preprocess makes images of {preprocess.image_size} with {preprocess.in_channels} "
            f"channels, and the model takes {config.image_size} with {config.in_channels}; give "
            "the model's own."
        )


def _extended(state: State, recipe: Recipe, extend: int, steps_per_epoch: int) -> Recipe:
    """The recipe of a run that is longer by `extend` epochs or steps, for the state, too."""
    check_whole("extend", extend, 1, 10**9)
    if recipe.steps:
        longer = recipe.replace(steps=recipe.steps + extend)
    else:
        epochs = recipe.total_steps(steps_per_epoch) // steps_per_epoch
        longer = recipe.replace(epochs=epochs + extend)
    if state.recipe == recipe:
        # A run may have ended within an epoch, which then goes on.
        epoch = state.progress.step // steps_per_epoch
        state.progress = dataclasses.replace(
            state.progress, epoch=epoch, end=None, cooled_from=None, cooled_to=None
        )
        state.recipe = longer
    return longer


def _checked(
    state: State, recipe: Recipe, steps_per_epoch: int, optimizer: Optimizer | None
) -> State:
    if ("optimizer" in state.arrays) != (optimizer is not None):
        raise ConfigError(
            "Expected the optimizer that the saved run began with; give it to State.load and fit."
        )
    if state.recipe != recipe:
        raise ConfigError(
            "Expected the recipe that the saved run began with; restore its settings, or start a "
            "new run."
        )
    if state.steps_per_epoch not in (None, steps_per_epoch):
        raise TrainingError(
            f"The training images changed: an epoch had {state.steps_per_epoch} batches and has "
            f"{steps_per_epoch} now; restore the images, or start a new run."
        )
    state.steps_per_epoch = steps_per_epoch
    return state


def _batches(train: Batches, state: State, last: int) -> Iterator[tuple[NDArray[np.uint8], Labels]]:
    """The rest of the epoch, up to step `last`."""
    progress = state.progress
    start = progress.step - progress.epoch * len(train)
    missing = last - progress.step
    if missing:
        for batch in train.epoch(progress.epoch, start):
            yield batch
            missing -= 1
            if not missing:
                return
        raise TrainingError(
            f"Epoch {progress.epoch + 1} ended {missing} batches early; check the training data."
        )


class _PendingStep:
    """A step that the device is computing."""

    report: mx.array

    def __init__(self, number: int, epoch: int, lr: float, images: int) -> None:
        self.number, self.epoch, self.lr, self.images = number, epoch, lr, images
        self.start = time.perf_counter()

    def event(self, state: State) -> StepDone:
        """Wait for the step. Raises TrainingError, with the state set back to before the step."""
        mx.eval(self.report)  # raises when another rank is gone; np.array would wait for ever
        numbers = dict(zip(REPORT, map(float, np.array(self.report)), strict=True))
        if numbers["failed"] or numbers["loss_scale"] < LOWEST_LOSS_SCALE:
            state.progress = dataclasses.replace(state.progress, step=self.number)
            state.arrays["counters"]["failed"] = mx.array(0.0)
            raise TrainingError(
                f"The loss or its gradient wasn't finite in step {self.number + 1} (loss "
                f"{numbers['loss']:g}); try a lower learning rate, or float32."
            )
        return StepDone(
            state,
            step=self.number + 1,
            epoch=self.epoch,
            loss=numbers["loss"],
            accuracy=numbers["accuracy"],
            lr=self.lr,
            gradient_norm=numbers["gradient_norm"],
            images_per_second=self.images / (time.perf_counter() - self.start),
            peak_memory=mx.get_peak_memory(),
            skipped=bool(numbers["skipped"]),
        )


def save(state: State, folder: str | os.PathLike[str], ranks: Ranks = ALONE) -> Saved:
    """Rank 0 writes the state; the others finish computing it. Raises TrainingError."""
    if ranks.rank == 0:
        state.save(folder)
    mx.eval(state.arrays)
    return Saved(state, state.progress.step, Path(folder))


def _validated(
    state: State, model: MlpMixer, validate: Validate | None, course: Course, score: str
) -> EpochDone:
    """Validate the weights that the course asks for, and move on by an epoch."""
    found: dict[WeightsName, Metrics] = {}
    if validate is not None:
        for weights in course.to_validate(state.progress, score):
            state.fill(model, weights)
            found[weights] = as_metrics(validate(model))
    epoch = state.progress.epoch - (state.progress.step == 0)
    state.progress, best = course.judged(state.progress, found, score)
    return EpochDone(
        state,
        state.progress.step,
        epoch,
        found.get("raw"),
        found.get("ema"),
        best,
        found.get("halfway"),
        found.get("start"),
    )
