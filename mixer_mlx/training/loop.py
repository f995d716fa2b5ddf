"""`fit`: the training loop, as a stream of events."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mixer_mlx.analysis.evaluate import Metrics
from mixer_mlx.data.mixing import Labels
from mixer_mlx.errors import ConfigError, TrainingError
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model import MlpMixer
from mixer_mlx.runtime.openblas import gpu_is_default
from mixer_mlx.runtime.ranks import ALONE, Ranks

from .optimizer import learning_rate
from .recipe import Recipe
from .state import State
from .step import REPORT, make_step

# Below this no gradient that overflows in float16 can be blamed on the scale.
LOWEST_LOSS_SCALE = 2.0**-10

Validate = Callable[[MlpMixer], Metrics]


class Batches(Protocol):
    """Training data: the same batches for the same (epoch, start), whatever was read before."""

    def __len__(self) -> int:
        """Batches in an epoch, at least one."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[NDArray[np.uint8], Labels]]:
        """Pixels (N, H, W, C) and labels (N,), from batch `start` of the epoch on."""


@dataclass(frozen=True)
class Event:
    """What happened. `state` is the run as it is now, ready to be saved."""

    state: State


@dataclass(frozen=True)
class StepDone(Event):
    """One update: `step` counts from 1, `epoch` from 0. The next one may be computed already.

    `loss` and `accuracy` (0 to 1) are those of the batch, before the update; `gradient_norm` is
    the length before clipping; `peak_memory` is in bytes. `skipped`: the gradient overflowed in
    float16, and the weights stayed as they were.
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
    """The end of an epoch, or of the run, with what the validation found.

    `ema` is None for a recipe without an average. `best` is "raw" or "ema" where these weights are
    better than all before (`State.fill` puts them into a model), else None.
    """

    step: int
    epoch: int
    raw: Metrics | None
    ema: Metrics | None
    best: str | None


@dataclass(frozen=True)
class Saved(Event):
    """The state of this step is in its folder."""

    step: int
    folder: Path


@dataclass(frozen=True)
class Done(Event):
    """The run is over, `stopped` early or not; the model has the last raw weights."""

    step: int
    stopped: bool


def fit(
    model: MlpMixer,
    train: Batches,
    validate: Validate | None,
    recipe: Recipe,
    *,
    preprocess: Preprocess,
    folder: Path | None = None,
    resume: State | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[Event]:
    """Train a model in place, as float32, one event at a time; stop it by asking for no more.

    `preprocess` says how pixels are normalised. The state is saved to `folder` after each epoch
    and every `recipe.save_every` steps. `validate` gets the model with the raw weights, and again
    with the average. `resume` is a state that was saved: on the CPU, in float32, the run goes on
    bit for bit as if it had never stopped.

    With several `ranks` all begin with rank 0's state, which rank 0 saves; `train` gives each its
    part of the batches. All get the same events, but for times and memory.

    Raises TrainingError for a loss that is no finite number (the state is then that before the
    step), for data that changed since, and for a state that can't be saved.
    """
    state = (resume or State.start(model, recipe)).shared(ranks)
    state = _begun(state, recipe, len(train))
    total = recipe.total_steps(len(train))
    step = make_step(model.config, recipe, preprocess, ranks)
    ahead = gpu_is_default()  # the CPU is busy with a step while it is handed on
    try:
        while state.progress.end is None:
            epoch = state.progress.epoch
            last = min(total, (epoch + 1) * len(train))
            running: _PendingStep | None = None
            for pixels, labels in _batches(train, state, last):
                number = state.progress.step
                lr = learning_rate(recipe, number, total)
                images = len(pixels) * ranks.size
                before, running = running, _PendingStep(number, epoch, lr, images)
                # No other name for the old arrays: the new ones take their memory.
                state.arrays, running.report = step(
                    state.arrays, state.frozen, pixels, labels, number, lr
                )
                state.progress = dataclasses.replace(state.progress, step=number + 1)
                mx.async_eval(state.arrays, running.report)
                if before:
                    event = before.event(state)
                    running.start = time.perf_counter()  # it waited for the one before
                    yield event
                saves = recipe.save_every and (number + 1) % recipe.save_every == 0
                if saves or not ahead:
                    yield running.event(state)
                    running = None
                if folder and saves:
                    yield save(state, folder, ranks)
            if running:
                yield running.event(state)
            yield _end_epoch(state, model, validate, total)
            if folder:
                yield save(state, folder, ranks)
        state.fill(model)
        yield Done(state, state.progress.step, stopped=state.progress.end == "stopped")
    finally:
        state.fill(model)


def _begun(state: State, recipe: Recipe, steps_per_epoch: int) -> State:
    if state.recipe != recipe:
        raise ConfigError(
            "The recipe is not the one that the saved run began with; leave its settings as they "
            "were, or start a new run."
        )
    if state.steps_per_epoch not in (None, steps_per_epoch):
        raise TrainingError(
            f"The training images changed: an epoch had {state.steps_per_epoch} batches and has "
            f"{steps_per_epoch} now; restore the folder, or start a new run."
        )
    state.steps_per_epoch = steps_per_epoch
    return state


def _batches(train: Batches, state: State, last: int) -> Iterator[tuple[NDArray[np.uint8], Labels]]:
    """What is left of the epoch, up to step `last`."""
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
    """A step that was handed to the device."""

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
                f"The loss or its gradient was no finite number in step {self.number + 1} (loss "
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


def save(state: State, folder: Path, ranks: Ranks = ALONE) -> Saved:
    """Rank 0 writes the state; the others wait until they have it, too. Raises TrainingError."""
    if ranks.rank == 0:
        state.save(folder)
    mx.eval(state.arrays)
    return Saved(state, state.progress.step, folder)


def _end_epoch(state: State, model: MlpMixer, validate: Validate | None, total: int) -> EpochDone:
    """Validate, and note whether that was the best and whether the run is over."""
    progress, patience = state.progress, state.recipe.patience
    found: dict[str, Metrics] = {}
    if validate is not None:
        for weights in ("raw", "ema") if "ema" in state.arrays else ("raw",):
            state.fill(model, weights)
            found[weights] = validate(model)
    best = max(found, key=lambda name: _quality(found[name]), default=None)
    if best and (progress.best is None or _quality(found[best]) > progress.best):
        progress = dataclasses.replace(
            progress, best=_quality(found[best]), best_epoch=progress.epoch, best_weights=best
        )
    else:
        best = None
    end = "done" if progress.step == total else None
    if end is None and patience and progress.best_epoch is not None:
        end = "stopped" if progress.epoch - progress.best_epoch >= patience else None
    state.progress = dataclasses.replace(progress, epoch=progress.epoch + 1, end=end)
    return EpochDone(state, progress.step, progress.epoch, found.get("raw"), found.get("ema"), best)


def _quality(metrics: Metrics) -> tuple[float, float]:
    """The better of two results has the higher top-1, or the same and a lower loss."""
    return metrics.top1, -min(metrics.loss, 1e9) if math.isfinite(metrics.loss) else -1e9
