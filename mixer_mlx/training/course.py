"""The course of a run: when it validates, which weights are the best, its rate, and its end."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from mixer_mlx.analysis.evaluate import Metrics
from mixer_mlx.choices import WeightsName
from mixer_mlx.errors import ConfigError

from .choice import chosen
from .optimizer import learning_rate
from .recipe import Recipe
from .state import Progress

Schedule = Callable[[int, int], float]
"""(step, total steps) -> learning rate."""


@dataclass(frozen=True)
class Course:
    """What a recipe means for epochs of `steps_per_epoch` steps.

    `schedule` replaces the recipe's; `own_rate`: the optimiser has a rate of its own instead.
    """

    recipe: Recipe
    steps_per_epoch: int
    schedule: Schedule | None = None
    own_rate: bool = False

    @property
    def total(self) -> int:
        """Steps of a run that patience doesn't end."""
        return self.recipe.total_steps(self.steps_per_epoch)

    @property
    def epochs_apart(self) -> int:
        """Validation comes after every so many epochs."""
        return -(-(self.recipe.validate_every or 1) // self.steps_per_epoch)

    def end(self, progress: Progress) -> int:
        """The number of steps after which the run ends, as far as is known."""
        return self.total if progress.cooled_to is None else progress.cooled_to

    def validates(self, progress: Progress) -> bool:
        """Whether validation is due now that an epoch, or the run, has ended."""
        due = (progress.epoch + 1) % self.epochs_apart == 0
        return due or progress.step == self.end(progress)

    def validates_first(self, progress: Progress) -> bool:
        """Whether validation is due before the first step: if the head may be good already."""
        return self.recipe.head == "ridge" and progress.step == 0 and progress.best is None

    def to_validate(self, progress: Progress, score: str) -> list[WeightsName]:
        """Which weights are validated now."""
        averaged = self.recipe.ema_decay is not None and progress.step > 0  # else both are the same
        names: list[WeightsName] = ["raw", "ema"] if averaged else ["raw"]
        halfway = self.recipe.best_by == "halfway" and score == "top1"
        if halfway and progress.step and progress.step == self.end(progress):
            names += ["halfway", "start"]
        return names

    def rate(self, progress: Progress) -> float | None:
        """The next step's learning rate; None for an optimiser that has its own.

        Once patience has run out it falls in a straight line, to `end_lr` after the last step.
        """
        if progress.cooled_from is None:
            return self._planned_rate(progress.step)
        start = self._planned_rate(progress.cooled_from)
        if start is None:
            return None
        end = min(start, self.recipe.end_lr)
        length = self.end(progress) - progress.cooled_from
        return end + (start - end) * (1 - (progress.step - progress.cooled_from) / length)

    def _planned_rate(self, step: int) -> float | None:
        if self.schedule is None:
            return None if self.own_rate else learning_rate(self.recipe, step, self.total)
        lr = float(self.schedule(step, self.total))
        if not (math.isfinite(lr) and lr >= 0):
            raise ConfigError(
                f"The schedule gave {lr} for step {step}; expected a rate of 0 or more."
            )
        return lr

    def judged(
        self, progress: Progress, found: Mapping[WeightsName, Metrics], score: str
    ) -> tuple[Progress, WeightsName | None]:
        """The progress after validation, and which weights are now the best, if any are.

        Raises ConfigError if there is no metric `score`.
        """
        quality = {name: _quality(metrics, score) for name, metrics in found.items()}
        by_loss = score == "top1" and self.recipe.best_by == "halfway"
        better = partial(_is_better, by_loss=by_loss)
        best = max(quality, key=lambda name: _key(quality[name], by_loss=by_loss), default=None)
        last = "start" in found and not found["start"].scores
        if last:
            best = chosen(found)
        if best and progress.step and better(quality[best], progress.improved):
            progress = dataclasses.replace(
                progress, improved=quality[best], improved_epoch=progress.epoch
            )
        if best and (last or better(quality[best], progress.best)):
            progress = dataclasses.replace(
                progress, best=quality[best], best_epoch=progress.epoch, best_weights=best
            )
        else:
            best = None
        if progress.step:  # else no epoch has ended
            progress = dataclasses.replace(self._ended(progress), epoch=progress.epoch + 1)
        return progress, best

    def _ended(self, progress: Progress) -> Progress:
        """Decide whether the run ends or, for its patience, cools down."""
        patience, step = self.recipe.patience, progress.step
        if step == self.end(progress):
            end = "done" if progress.cooled_to is None else "stopped"
            return dataclasses.replace(progress, end=end)
        if not patience or progress.improved_epoch is None or progress.cooled_to is not None:
            return progress
        if progress.epoch - progress.improved_epoch < patience * self.epochs_apart:
            return progress
        cooled = min(self.total - step, round(self.recipe.cooldown * step))
        if not cooled or self._planned_rate(step) is None:
            return dataclasses.replace(progress, end="stopped")
        return dataclasses.replace(progress, cooled_from=step, cooled_to=step + cooled)


def as_metrics(found: Metrics | Mapping[str, float]) -> Metrics:
    """Metrics of any names as `scores`."""
    if isinstance(found, Metrics):
        return found
    return Metrics(math.nan, math.nan, math.nan, 0, math.nan, dict(found))


def _quality(metrics: Metrics, score: str) -> tuple[float, float]:
    """Sort key: the higher `score` is better, for top-1 then the lower loss.

    Raises ConfigError if there is no such metric.
    """
    name = score.removeprefix("-")
    known = metrics.scores or metrics.to_dict()
    if name not in known:
        raise ConfigError(f"There is no metric {name!r} to score by, only {', '.join(known)}.")
    second = -_bounded(known["loss"]) if score == "top1" and "loss" in known else 0.0
    if not math.isfinite(known[name]):
        return -1e9, second
    return _bounded(known[name]) * (-1 if score.startswith("-") else 1), second


def _key(quality: tuple[float, float], *, by_loss: bool) -> tuple[float, float]:
    return quality[::-1] if by_loss else quality


def _is_better(
    found: tuple[float, float], best: tuple[float, float] | None, *, by_loss: bool
) -> bool:
    return best is None or _key(found, by_loss=by_loss) > _key(best, by_loss=by_loss)


def _bounded(value: float) -> float:
    return max(-1e9, min(float(value), 1e9)) if math.isfinite(value) else 1e9
