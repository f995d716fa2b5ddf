import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import mlx.core as mx
import numpy as np
import pytest
from training.synthetic import CONFIG, PREPROCESS, Batch, Synthetic, tiny_model, weights

from mixer_mlx import ConfigError, MlpMixer
from mixer_mlx.analysis.evaluate import Metrics
from mixer_mlx.errors import TrainingError
from mixer_mlx.runtime.backend import gpu_is_default
from mixer_mlx.training.loop import Done, EpochDone, Event, Saved, StepDone, fit
from mixer_mlx.training.loss import LOSSES, softmax_loss
from mixer_mlx.training.optimizer import learning_rate
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.state import State
from mixer_mlx.training.step import Step, make_step

RECIPE = Recipe(epochs=2, batch_size=6, lr=0.01, drop_path=0.3, ema_decay=0.5, accumulation=2)


def events(recipe: Recipe = RECIPE, **others: object) -> Iterator[Event]:
    """A run of the tiny model on five batches an epoch."""
    model = others.pop("model", None) or tiny_model()
    validate = others.pop("validate", None)
    train = others.pop("train", Synthetic())
    return fit(model, train, validate, recipe, preprocess=PREPROCESS, **others)  # type: ignore[arg-type]


def metrics(top1: float, loss: float = 1.0) -> Metrics:
    return Metrics(top1, 1.0, loss, 10, 100.0)


def test_it_learns() -> None:
    recipe = Recipe(epochs=12, lr=0.02)
    steps = [event for event in events(recipe) if isinstance(event, StepDone)]
    assert steps[0].loss > 1.5
    assert np.mean([step.loss for step in steps[-5:]]) < 0.5
    assert np.mean([step.accuracy for step in steps[-5:]]) > 0.8


def test_events_tell_everything_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "state"
    found = list(events(replace(RECIPE, save_every=3), folder=folder))
    kinds = [type(event).__name__ for event in found]
    steps = ["StepDone"] * 3
    first = [*steps, "Saved", *steps[:2], "EpochDone", "Saved"]
    second = ["StepDone", "Saved", *steps, "Saved", "StepDone", "EpochDone", "Saved"]
    assert kinds == [*first, *second, "Done"]
    steps = [event for event in found if isinstance(event, StepDone)]
    assert [step.step for step in steps] == list(range(1, 11))
    assert [step.epoch for step in steps] == [0] * 5 + [1] * 5
    assert [step.lr for step in steps] == [learning_rate(RECIPE, i, 10) for i in range(10)]
    assert all(step.images_per_second > 0 and step.peak_memory > 0 for step in steps)
    assert all(step.gradient_norm > 0 and not step.skipped for step in steps)
    saved = [event.step for event in found if isinstance(event, Saved)]
    assert saved == [3, 5, 6, 9, 10]
    done = found[-1]
    assert isinstance(done, Done)
    assert (done.step, done.stopped) == (10, False)
    assert State.load(folder, tiny_model()).progress.end == "done"


def test_speed_counts_no_moment_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr("mixer_mlx.training.loop.time", clock)
    steps = [event for event in events() if isinstance(event, StepDone)]
    # A step is handed on before the one before it is read.
    assert len(steps) == 10
    assert sum(6 / step.images_per_second for step in steps) <= next(ticks)


@pytest.mark.skipif(gpu_is_default(), reason="NOT RUN: a GPU computes while the CPU goes on")
def test_speed_of_a_step_that_is_computed_while_it_is_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]

    def slow(*arguments: object, **options: object) -> Step:
        step = make_step(*arguments, **options)  # type: ignore[arg-type]

        def run(*more: object) -> object:
            result = step(*more)  # type: ignore[arg-type]
            mx.eval(result)
            now[0] += 2.0
            return result

        return cast(Step, run)

    monkeypatch.setattr("mixer_mlx.training.loop.gpu_is_default", lambda: False)
    monkeypatch.setattr("mixer_mlx.training.loop.make_step", slow)
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("mixer_mlx.training.loop.time", clock)
    steps = [event for event in events() if isinstance(event, StepDone)]
    assert [6 / step.images_per_second for step in steps] == [2.0] * 10


def test_the_model_has_the_raw_weights_in_the_end_and_when_left_early() -> None:
    for wanted in (StepDone, Done):
        model = tiny_model()
        run = events(model=model)
        last = next(event for event in run if isinstance(event, wanted))
        if wanted is StepDone:
            run.close()  # type: ignore[attr-defined]
        trained = last.state.arrays["weights"]
        assert all(np.array_equal(w, trained[name]) for name, w in weights(model).items())
        assert not np.array_equal(weights(tiny_model())["head.weight"], trained["head.weight"])


def test_validation_sees_raw_and_averaged_weights_and_keeps_the_better() -> None:
    seen: list[dict[str, np.ndarray]] = []
    results = iter([metrics(0.5), metrics(0.4), metrics(0.5, 0.9), metrics(0.6)])

    def validate(model: MlpMixer) -> Metrics:
        seen.append(weights(model))
        return next(results)

    model = tiny_model()
    for event in events(model=model, validate=validate):
        if isinstance(event, EpochDone):
            for kind, found in (("weights", seen[-2]), ("ema", seen[-1])):
                for name, w in event.state.arrays[kind].items():
                    assert np.array_equal(w, found[name])
            last = event
            if event.epoch == 0:
                assert event.best == "raw"
    assert isinstance(last, EpochDone)
    assert (last.best, last.raw, last.ema) == ("ema", metrics(0.5, 0.9), metrics(0.6))
    progress = last.state.progress
    assert (progress.best, progress.best_epoch, progress.best_weights) == ((0.6, -1.0), 1, "ema")
    last.state.fill(model, "ema")
    assert np.array_equal(weights(model)["head.weight"], seen[-1]["head.weight"])


def test_equal_accuracy_and_lower_loss_is_better_and_nan_is_worst() -> None:
    results = iter([metrics(0.5, 1.0), metrics(0.5, 0.9), metrics(0.5, float("nan"))])
    recipe = Recipe(epochs=3, lr=0.01)
    found = [
        e for e in events(recipe, validate=lambda _: next(results)) if isinstance(e, EpochDone)
    ]
    assert [event.best for event in found] == ["raw", "raw", None]


def test_patience(tmp_path: Path) -> None:
    results = iter([0.5, 0.7, 0.6, 0.6, 0.9])
    recipe = Recipe(epochs=5, lr=0.01, patience=2)
    run = events(recipe, validate=lambda _: metrics(next(results)), folder=tmp_path / "state")
    done = list(run)[-1]
    assert isinstance(done, Done)
    assert (done.step, done.stopped) == (20, True)
    state = State.load(tmp_path / "state", tiny_model())
    assert list(map(type, events(recipe, resume=state))) == [Done]


def test_steps_end_a_run_within_an_epoch() -> None:
    found = list(events(Recipe(steps=7, lr=0.01), validate=lambda _: metrics(0.5)))
    assert [e.step for e in found if isinstance(e, EpochDone)] == [5, 7]
    assert found[-1].step == 7  # type: ignore[attr-defined]


def test_a_loss_that_is_no_number_names_the_step_and_keeps_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # a batch in one part, so one call each
    calls = itertools.count(1)

    def poisoned(*arguments: object) -> mx.array:
        return softmax_loss(*arguments) * (np.nan if next(calls) == 7 else 1.0)  # type: ignore[arg-type]

    monkeypatch.setitem(LOSSES, "softmax", poisoned)
    recipe = Recipe(epochs=3, lr=0.01, ema_decay=0.5, save_every=6)
    reached: list[Event] = []
    with pytest.raises(TrainingError, match=r"in step 7 \(loss nan\); try a lower learning rate"):
        for event in events(recipe, folder=tmp_path / "state"):
            reached.append(event)
    state, saved = reached[-1].state, State.load(tmp_path / "state", tiny_model())
    assert state.progress == saved.progress
    assert state.progress.step == 6
    for group, values in saved.arrays.items():
        assert all(mx.array_equal(w, state.arrays[group][name]) for name, w in values.items())


def test_an_epoch_that_ends_early_is_an_error() -> None:
    class Short(Synthetic):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            yield from itertools.islice(super().epoch(epoch, start), 3)

    with pytest.raises(TrainingError, match="Epoch 1 ended 2 batches early"):
        list(events(train=Short()))


def test_resume_refuses_another_recipe_and_other_data() -> None:
    state = next(events()).state
    with pytest.raises(ConfigError, match="recipe"):
        next(events(replace(RECIPE, lr=0.02), resume=state))
    with pytest.raises(TrainingError, match="had 5 batches and has 4"):
        next(events(resume=state, train=Synthetic(batches=4)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format is 2"),
        ({"recipe": None}, "'recipe'"),
        ({"recipe": {"epochs": 2, "lr": -1}}, "lr is -1"),
        ({"recipe": {"epochs": 2}}, "ema/.* isn't part of the model"),
        ({"progress": {"step": 1, "epoch": 0, "steps": 1}}, "steps"),
        ({"progress": {"step": -1, "epoch": 0}}, "step is -1"),
        ({"progress": {"step": 1, "epoch": 0, "best": [1, "a"]}}, r"best is \[1, 'a'\]"),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    next(events()).state.save(tmp_path / "state")
    path = tmp_path / "state" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(TrainingError, match=message):
        State.load(tmp_path / "state", tiny_model())


def test_a_state_of_another_model_or_none_is_refused(tmp_path: Path) -> None:
    next(events()).state.save(tmp_path / "state")
    with pytest.raises(TrainingError, match=r"is F32 \[.*not F32"):
        State.load(tmp_path / "state", tiny_model(config=CONFIG.replace(hidden_dim=16)))
    with pytest.raises(TrainingError, match="can't be used"):
        State.load(tmp_path / "nothing", tiny_model())
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="can't be written"):
        next(events()).state.save(tmp_path / "file" / "state")


def test_nothing_to_train_is_refused() -> None:
    headless = tiny_model(config=CONFIG.replace(num_classes=0))
    with pytest.raises(ConfigError, match="no head"):
        State.start(headless, Recipe(steps=1, freeze="backbone"))
