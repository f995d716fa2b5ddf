"""Expected numbers come from formulas written anew in NumPy, and from what is known of descent."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from training.synthetic import CONFIG, PREPROCESS, Synthetic, tiny_model, weights

from mixer_mlx.errors import TrainingError
from mixer_mlx.training.find_lr import (
    Trial,
    fall,
    range_test,
    rates,
    save,
    steepest,
    suggested,
    table,
    try_rates,
)
from mixer_mlx.training.loop import StepDone, fit
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.state import State
from mixer_mlx.training.step import REPORT, Arrays, make_step

RECIPE = Recipe(epochs=3, lr=0.01, schedule="constant", warmup=0, drop_path=0.3)
PIXELS = np.zeros((1, 8, 12, 3), np.uint8)
NOTHING = (PIXELS, np.zeros(1, np.int32))


def first(recipe: Recipe = RECIPE) -> list[Trial]:
    trials = try_rates(tiny_model(), Synthetic(), recipe, PREPROCESS)
    return list(itertools.islice(trials, 8))


def parabola(curvature: float, fails_at: int | None = None):  # type: ignore[no-untyped-def]
    """A step of gradient descent on curvature / 2 * w ** 2, which diverges above 2 / curvature."""

    def step(arrays: Arrays, frozen: object, pixels: object, labels: object, n: int, lr: float):  # type: ignore[no-untyped-def]
        w = arrays["weights"]["w"]
        report = dict.fromkeys(REPORT, 0.0) | {"loss": (curvature / 2 * w * w).item()}
        report["failed"] = float(n == fails_at)
        new: Arrays = {"weights": {"w": w * (1 - lr * curvature)}}
        return new, mx.array([report[name] for name in REPORT])

    return step


def descend(curvature: float, fails_at: int | None = None) -> list[Trial]:
    state = State(RECIPE, {"weights": {"w": mx.array(1.0)}}, {})
    step = parabola(curvature, fails_at)
    return list(range_test(step, state, itertools.repeat(NOTHING), rates()))


def smoothed(losses: list[float]) -> list[float]:
    """An exponential moving average from zero, divided by 1 - 0.98**n (as Adam's is)."""
    average, out = 0.0, []
    for n, loss in enumerate(losses, start=1):
        average = 0.98 * average + 0.02 * loss
        out.append(average / (1 - 0.98**n))
    return out


def test_rates_rise_by_one_factor() -> None:
    expected = [1e-7 * 10 ** (8 * i / 99) for i in range(100)]
    assert rates() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("curvature", [0.5, 4.0, 300.0])
def test_a_parabola_diverges_where_it_must(curvature: float) -> None:
    trials, w, losses = descend(curvature), 1.0, []
    for trial in trials:
        losses.append(curvature / 2 * w * w)
        w *= 1 - trial.lr * curvature
    assert [trial.loss for trial in trials] == pytest.approx(losses, rel=1e-3, abs=1e-30)
    assert [trial.smoothed for trial in trials] == pytest.approx(
        smoothed([trial.loss for trial in trials]), rel=1e-9
    )
    for before, after in itertools.pairwise(trials):
        assert (after.loss < before.loss) == (before.lr < 2 / curvature)
    averages = [trial.smoothed for trial in trials]
    over = [n for n in range(len(trials)) if averages[n] > 4 * min(averages[: n + 1])]
    assert over in ([], [len(trials) - 1])  # it stops there and not before
    assert over or len(trials) == 100
    assert curvature < 1 or trials[-1].lr > 2 / curvature
    assert 0 < (suggested(trials) or 9e9) < 2 / curvature


def test_an_overflow_ends_it() -> None:
    assert len(descend(1.0, fails_at=7)) == 7
    assert descend(1.0, fails_at=0) == []


def test_logistic_regression_falls_up_to_the_known_rate_and_explodes_later() -> None:
    """The head alone is softmax regression; its Hessian is at most half of that of X (Boehning)."""
    recipe = Recipe(steps=1, optimizer="sgd", momentum=0, clip_norm=None, freeze="backbone")
    model = tiny_model()
    data = Synthetic(batches=1, batch_size=30)
    pixels, labels = next(data.epoch(0))
    x = np.array(model.pre_logits(mx.array(PREPROCESS.normalize(pixels))), np.float64)
    x = np.column_stack([x, np.ones(30)])
    safe = 2 / (np.linalg.eigvalsh(x.T @ x / 30)[-1] / 2)
    start = weights(model)
    w = np.column_stack([start["head.weight"], start["head.bias"]]).astype(np.float64)
    expected, truth = [], np.eye(5)[labels]
    tried = rates(1e-3, 1e3, 40)
    for lr in tried:
        logits = x @ w.T
        log_p = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1))[:, None]
        log_p -= logits.max(1, keepdims=True)
        expected.append(-(log_p * truth).sum(1).mean())
        w -= lr * (np.exp(log_p) - truth).T @ x / 30
    step = make_step(CONFIG, recipe, PREPROCESS)
    batches = itertools.repeat((pixels, labels))
    trials = list(range_test(step, State.start(model, recipe), batches, tried))
    below = [trial for trial in trials if trial.lr < safe]
    assert len(below) > 15
    losses = [trial.loss for trial in below]
    assert losses == pytest.approx(expected[: len(below)], rel=1e-4)
    assert losses == sorted(losses, reverse=True)
    assert len(trials) < 40
    assert trials[-1].loss > 4 * min(losses)
    assert (suggested(trials) or 1e9) < trials[-1].lr


def test_its_steps_are_those_of_a_run() -> None:
    events = fit(tiny_model(), Synthetic(), None, RECIPE, preprocess=PREPROCESS)
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    recipe, data = RECIPE, Synthetic()
    state = State.start(tiny_model(), recipe)

    def batches() -> Iterator[object]:
        for epoch in range(3):
            yield from data.epoch(epoch)

    step = make_step(CONFIG, recipe, PREPROCESS)
    trials = range_test(step, state, batches(), [0.01] * 15)  # type: ignore[arg-type]
    assert [trial.loss for trial in trials] == losses


def test_it_is_deterministic_and_leaves_the_model_alone() -> None:
    model = tiny_model()
    before = weights(model)
    trials = list(try_rates(model, Synthetic(), RECIPE, PREPROCESS))
    assert 60 < len(trials) <= 100  # more epochs than one
    assert all(np.array_equal(value, before[name]) for name, value in weights(model).items())
    assert first() == trials[:8]
    assert first(RECIPE.replace(lr=0.5, ema_decay=0.9, schedule="cosine")) == trials[:8]
    assert first(RECIPE.replace(seed=1)) != trials[:8]


def hill(smooth: list[float]) -> list[Trial]:
    return [Trial(10.0 ** (n / 10), y, y) for n, y in enumerate(smooth)]


def test_a_tenth_of_the_lowest_is_suggested_and_the_steepest_fall_before_it_told() -> None:
    y = [9.0, 5.0, *[4.0] * 10, 3.9, 3.5, 3.3, 3.2, 3.6, 3.9, 3.3, 4.5]
    trials = hill(y)
    assert suggested(trials) == pytest.approx(10**0.5)
    slopes = np.diff(y) / np.diff(np.log([trial.lr for trial in trials]))
    slopes[:10] = slopes[15:] = 0  # too early; past the lowest, where the fall to 3.3 is steeper
    assert fall(trials) == pytest.approx((4.0 - 3.2) / 4.0)
    assert steepest(trials) == trials[int(slopes.argmin())].lr == 10.0**1.2
    for nothing in (hill(list(np.arange(1.0, 30))), hill([3.0, 2.0, 1.0])):
        assert suggested(nothing) is None
        assert steepest(nothing) is None


def test_the_plot_and_its_numbers(tmp_path: Path) -> None:
    trials = descend(4.0)
    save(trials, tmp_path / "lr.png")
    record = json.loads(table(tmp_path / "lr.png").read_text())
    assert record["suggested_lr"] == suggested(trials)
    assert record["steepest_at"] == steepest(trials)
    assert [Trial(**values) for values in record["trials"]] == trials
    with Image.open(tmp_path / "lr.png") as image:
        pixels = np.array(image.convert("RGB"))
    upright = np.flatnonzero((pixels < 60).all(-1).sum(0) > 250)  # columns full of ink
    marks = sorted([record["suggested_lr"], record["steepest_at"]])
    across = (np.log10(marks) + 7.5) / 9 * (760 - 24 - 70) + 70
    assert upright == pytest.approx(across, abs=1)
    with pytest.raises(TrainingError, match="can't be written"):
        save(trials, tmp_path / "missing" / "lr.png")
