"""A run that was stopped or killed and goes on ends with the same bits as one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from training.synthetic import PREPROCESS, Synthetic, tiny_model, weights

from mixer_mlx import MlpMixer
from mixer_mlx.analysis.evaluate import Metrics
from mixer_mlx.training.loop import Event, fit
from mixer_mlx.training.network import put
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.state import State

RECIPES = {
    "plain": Recipe(epochs=3, lr=0.01, weight_decay=0.1, save_every=2),
    "accumulation": Recipe(epochs=3, lr=0.01, accumulation=2, drop_path=0.4, save_every=3),
    "ema": Recipe(epochs=3, lr=0.05, optimizer="sgd", ema_decay=0.8, dropout=0.2, save_every=1),
    "muon": Recipe(epochs=3, lr=0.01, optimizer="muon", ema_decay=0.8, save_every=3),
    "frozen": Recipe(epochs=3, lr=0.01, freeze="backbone", unfreeze_last=1, save_every=4),
    "float16": Recipe(epochs=3, lr=0.01, dtype="float16", save_every=4),
}
STEPS = 15

CHILD = """
import sys, mixer_mlx
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from training.test_resume import RECIPES, STEPS, run
for event in run(RECIPES[sys.argv[2]], Path(sys.argv[3])):
    print(getattr(event, "step", ""), flush=True)
    if getattr(event, "step", 0) == STEPS - 1:
        sys.stdin.read()  # never over before the kill
"""


def validate(model: MlpMixer) -> Metrics:
    return Metrics(0.5, 1.0, float(abs(weights(model)["head.weight"]).sum()), 1, 1.0)


def run(
    recipe: Recipe,
    folder: Path | None = None,
    state: State | None = None,
    model: MlpMixer | None = None,
) -> Iterator[Event]:
    return fit(
        model or tiny_model(),
        Synthetic(),
        validate,
        recipe,
        preprocess=PREPROCESS,
        folder=folder,
        resume=state,
    )


def finished(recipe: Recipe, state: State | None = None) -> State:
    """The state at the end of a run from the beginning, or of one that goes on."""
    model = tiny_model(seed=0 if state is None else 1)
    *_, last = run(recipe, state=state, model=model)
    for name, w in weights(model).items():
        kept = {**last.state.frozen, **last.state.arrays["weights"]}
        assert np.array_equal(w, kept[name])
    return last.state


def assert_same(one: State, other: State) -> None:
    assert one.progress == other.progress
    assert set(one.arrays) == set(other.arrays)
    for group in one.arrays:
        for name, value in one.arrays[group].items():
            assert np.array_equal(value, other.arrays[group][name]), f"{group} {name}"
    for name, value in one.frozen.items():
        assert np.array_equal(value, other.frozen[name]), name


@pytest.mark.parametrize("name", RECIPES)
def test_stopped_at_any_event(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    expected = finished(recipe)
    assert expected.progress.step == STEPS
    # A step within an epoch, the last before its validation, the validation, the end.
    for stop in (1, 4, 5, 18) if name == "plain" else (7, 11):
        for number, event in enumerate(run(recipe)):
            if number == stop:
                event.state.save(tmp_path / "state")
                break
        state = State.load(tmp_path / "state", tiny_model(seed=1))
        assert_same(finished(recipe, state), expected)


def test_the_format_on_disk(tmp_path: Path) -> None:
    """Another number would make every interrupted run useless to the next version."""
    State.start(tiny_model(), RECIPES["plain"]).save(tmp_path / "state")
    record = json.loads((tmp_path / "state" / "state.json").read_text())
    assert record["format"] == 1
    assert sorted(record) == ["format", "progress", "recipe", "steps_per_epoch"]


@pytest.mark.parametrize("name", RECIPES)
def test_arrays_lie_in_memory_as_after_loading(name: str, tmp_path: Path) -> None:
    """Some BLAS round a product otherwise for a transposed matrix; official files hold such."""
    model = tiny_model()
    turned = {name: mx.contiguous(mx.array(w).T).T for name, w in weights(model).items()}
    put(model, turned)
    assert any(w.ndim > 1 and w.flags.f_contiguous for w in weights(model).values())
    state = State.start(model, RECIPES[name])
    layouts = [strides(state)]
    layouts += [strides(event.state) for event in islice(run(state.recipe, state=state), 2)]
    state.save(tmp_path / "state")
    assert layouts == [strides(State.load(tmp_path / "state", tiny_model()))] * 3


def strides(state: State) -> dict[str, tuple[int, ...]]:
    groups = {"frozen": state.frozen, **state.arrays}
    return {
        f"{group}/{name}": np.array(w).strides
        for group in groups
        for name, w in groups[group].items()
    }


def killed(name: str, folder: Path, step: int) -> None:
    """Train in a process of its own, and kill it when it tells of that step."""
    code = [sys.executable, "-c", CHILD, str(Path(__file__).parents[1]), name, str(folder)]
    with subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip() == str(step):
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL, "the run was over before the kill"


def check(name: str, folder: Path, seed: int) -> None:
    step = random.Random(seed).randint(5, STEPS - 2)  # noqa: S311
    print(f"{name}: seed {seed}, killed at step {step}")
    killed(name, folder, step)
    assert [entry.name for entry in folder.parent.iterdir() if entry.name[0] != "."] == ["state"]
    state = State.load(folder, tiny_model(seed=1))
    assert 0 < state.progress.step < STEPS
    assert_same(finished(RECIPES[name], state), finished(RECIPES[name]))


@pytest.mark.parametrize("name", ["accumulation", "ema", "frozen"])
def test_killed_at_a_random_step(name: str, tmp_path: Path) -> None:
    check(name, tmp_path / "state", int.from_bytes(os.urandom(4)))


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_killed_at_ten_random_steps(name: str, tmp_path: Path) -> None:
    for _ in range(10):
        check(name, tmp_path / "state", int.from_bytes(os.urandom(4)))
