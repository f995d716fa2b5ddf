"""The learning-rate range test: find a rate by raising it from far too low to far too high.

By Smith (arXiv 1506.01186); its settings and suggestions are those of fastai's `lr_find` with
`minimum` and `steep`.
"""

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.analysis.curves import Panel, draw_panels
from mixer_mlx.data.mixing import Labels
from mixer_mlx.errors import TrainingError
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model import MlpMixer
from mixer_mlx.runtime.atomic import written_file

from .loop import Batches
from .recipe import Recipe
from .state import State
from .step import REPORT, Step, make_step

LOWEST, HIGHEST, STEPS = 1e-7, 10.0, 100
SMOOTHING = 0.98
DIVERGED = 4.0
"""The test ends when the smoothed loss is this many times its minimum."""
SKIPPED = 10
"""First steps, whose smoothed loss averages too few losses to suggest a rate."""
SLIGHT = 0.005
"""A `fall` below this may be noise."""


@dataclass(frozen=True)
class Trial:
    """One step: its learning rate, and its batch's loss before the update.

    `smoothed` is the bias-corrected exponential moving average of the losses, with decay SMOOTHING.
    """

    lr: float
    loss: float
    smoothed: float


def try_rates(
    model: MlpMixer, train: Batches, recipe: Recipe, preprocess: Preprocess
) -> Iterator[Trial]:
    """Train for STEPS steps, each with the next rate, on a copy of the weights.

    The recipe's rate, schedule, length and EMA are ignored. Ends early if the loss diverges or
    isn't finite.
    """
    recipe = recipe.replace(ema_decay=None)
    step = make_step(model.config, recipe, preprocess)
    batches = (batch for epoch in itertools.count() for batch in train.epoch(epoch))
    return range_test(step, State.start(model, recipe), batches, rates())


def rates(lowest: float = LOWEST, highest: float = HIGHEST, steps: int = STEPS) -> list[float]:
    """Geometrically spaced rates, both ends included."""
    return [float(rate) for rate in np.geomspace(lowest, highest, steps)]


def range_test(
    step: Step,
    state: State,
    batches: Iterable[tuple[NDArray[np.uint8], Labels]],
    rates: Sequence[float],
) -> Iterator[Trial]:
    """One step per rate, until the loss diverges; changes `state`."""
    sum_of_losses = sum_of_weights = 0.0
    best = math.inf
    for number, (lr, (pixels, labels)) in enumerate(zip(rates, batches, strict=False)):
        state.arrays, report = step(state.arrays, state.frozen, pixels, labels, number, lr)
        numbers = dict(zip(REPORT, map(float, np.array(report)), strict=True))
        if numbers["failed"]:
            return
        sum_of_losses = SMOOTHING * sum_of_losses + numbers["loss"]
        sum_of_weights = SMOOTHING * sum_of_weights + 1
        trial = Trial(lr, numbers["loss"], sum_of_losses / sum_of_weights)
        yield trial
        best = min(best, trial.smoothed)
        if trial.smoothed > DIVERGED * best:
            return


def suggested(trials: Sequence[Trial]) -> float | None:
    """A tenth of the rate with the lowest smoothed loss; None if the loss never fell."""
    lowest = min(range(len(trials)), key=lambda number: trials[number].smoothed)
    return trials[lowest].lr / 10 if lowest >= SKIPPED else None


def steepest(trials: Sequence[Trial]) -> float | None:
    """The rate where the smoothed loss falls most steeply, by the logarithm of the rate.

    Only rates up to the lowest smoothed loss count: later falls are noise. The smoothed loss lags
    behind, so its steepest fall is near the minimum of the unsmoothed loss.
    """
    lowest = min(range(len(trials)), key=lambda number: trials[number].smoothed)
    falls = [
        ((after.smoothed - before.smoothed) / math.log(after.lr / before.lr), before.lr)
        for before, after in itertools.pairwise(trials[SKIPPED : lowest + 1])
    ]
    return min(falls, default=(0.0, None))[1]


def fall(trials: Sequence[Trial]) -> float:
    """By which fraction the smoothed loss fell to its minimum."""
    later = [trial.smoothed for trial in trials[SKIPPED:]]
    return 1 - min(later) / later[0] if later and later[0] else 0.0


def save(trials: Sequence[Trial], plot: str | os.PathLike[str]) -> None:
    """Write the curves as a PNG, and all values as JSON beside it. Raises TrainingError."""
    record = {
        "suggested_lr": suggested(trials),
        "steepest_at": steepest(trials),
        "fall": fall(trials),
        "trials": [dataclasses.asdict(trial) for trial in trials],
    }
    with written_file(table(plot), TrainingError) as temporary:
        temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", "utf-8")
    with written_file(Path(plot), TrainingError) as temporary:
        draw_panels([_panel(trials)]).save(temporary, "PNG")


def table(plot: str | os.PathLike[str]) -> Path:
    """The JSON file beside a plot."""
    return Path(plot).with_suffix(".json")


def _panel(trials: Sequence[Trial]) -> Panel:
    """Loss by the logarithm of the rate, clipped above the first losses."""
    ceiling = 1.5 * max(trial.smoothed for trial in trials[:SKIPPED])
    x = [math.log10(trial.lr) for trial in trials]
    curves = {
        "smoothed": [trial.smoothed for trial in trials],
        "loss of the batch": [trial.loss for trial in trials],
    }
    marks = {"suggested": suggested(trials), "steepest": steepest(trials)}
    decades = range(math.ceil(x[0] - 1e-9), math.ceil(x[-1] - 1e-9) + 1)
    return Panel(
        f"loss by learning rate, up to {ceiling:.2g}",
        {
            name: [(a, min(b, ceiling)) for a, b in zip(x, values, strict=True)]
            for name, values in curves.items()
        },
        x_labels={float(decade): f"{10.0**decade:g}" for decade in decades},
        marked={math.log10(lr): f"{name}: {lr:.2g}" for name, lr in marks.items() if lr},
    )
