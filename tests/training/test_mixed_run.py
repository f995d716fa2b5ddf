"""Runs with mixed, weighted and drawn batches: the step on them, and exact resume."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training.synthetic import CONFIG, PREPROCESS, Synthetic, tiny_model, weights

from mixer_mlx.data.mixing import Mixing, SoftLabels
from mixer_mlx.data.read import Dataset, read_split
from mixer_mlx.training import prepare
from mixer_mlx.training import step as step_module
from mixer_mlx.training.loop import StepDone, fit
from mixer_mlx.training.network import weights_of
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.state import State
from mixer_mlx.training.step import Arrays, first_arrays, make_step

PIXELS, LABELS = next(Synthetic(batches=1, batch_size=6).epoch(0))


def one_step(labels: np.ndarray | SoftLabels, **changes: object) -> tuple[Arrays, list[float]]:
    recipe = Recipe(steps=1, optimizer="sgd", clip_norm=None, **changes)  # type: ignore[arg-type]
    arrays = first_arrays(weights_of(tiny_model()), recipe)
    arrays, report = make_step(CONFIG, recipe, PREPROCESS)(arrays, {}, PIXELS, labels, 0, 0.1)
    return arrays, report.tolist()[:3]


def assert_close(one: Arrays, other: Arrays) -> None:
    for name, value in other["v"].items():
        assert np.array(one["v"][name]) == pytest.approx(np.array(value), abs=2e-6), name


def test_hard_targets_written_softly_are_the_same_step() -> None:
    hard, report = one_step(LABELS)
    soft = SoftLabels(np.stack([LABELS, LABELS[::-1]]), np.array([[1.0], [0.0]], np.float32))
    soft = soft._replace(weights=np.repeat(soft.weights, 6, axis=1))
    found, other = one_step(soft)
    assert other == pytest.approx(report, rel=1e-5)
    assert_close(found, hard)


def test_the_gradient_of_mixed_targets_is_the_mixed_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = np.roll(LABELS, 1)
    parts = np.stack([LABELS, others])
    soft = SoftLabels(parts, np.repeat(np.array([[0.7], [0.3]], np.float32), 6, axis=1))
    (one, (loss, _, _)), (other, (far, _, _)) = one_step(LABELS), one_step(others)
    mixed = {name: 0.7 * g + 0.3 * other["v"][name] for name, g in one["v"].items()}
    found, report = one_step(soft)
    assert report[0] == pytest.approx(0.7 * loss + 0.3 * far, rel=1e-5)
    assert_close(found, {"v": mixed})
    in_parts, again = one_step(soft, accumulation=4)
    assert again == pytest.approx(report, rel=1e-5)
    assert_close(in_parts, found)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Nineteen noisy images in five classes."""
    rng = np.random.default_rng(0)
    for i in range(19):
        folder = tmp_path / "photos" / "aaaaaaabbbbbccccdde"[i]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (10, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return read_split(tmp_path / "photos")[0]


@pytest.mark.parametrize("balance", ["loss", "sampling"])
def test_stopped_anywhere_it_goes_on_bit_for_bit(
    dataset: Dataset, balance: str, tmp_path: Path
) -> None:
    recipe = Recipe(
        epochs=2,
        batch_size=4,
        lr=0.01,
        layer_decay=0.8,
        rand_augment=(2, 15),
        erasing=0.5,
        mixup=0.5,
        cutmix=1.0,
        balance=balance,
    )

    def run(state: State | None = None) -> tuple[State, dict[str, np.ndarray]]:
        """To the end; on the way, the state after step 6 is saved."""
        model = tiny_model(seed=0 if state is None else 1)
        batches = prepare.training_batches(dataset, recipe, PREPROCESS, lambda *_: None)
        assert isinstance(batches.mixing, Mixing)
        for event in fit(model, batches, None, recipe, preprocess=PREPROCESS, resume=state):
            if state is None and isinstance(event, StepDone) and event.step == 6:
                event.state.save(tmp_path / "state")
        return event.state, weights(model)

    _, expected = run()
    state, found = run(State.load(tmp_path / "state", tiny_model(seed=1)))
    assert state.progress.step == 8
    assert all(np.array_equal(found[name], w) for name, w in expected.items())
    assert not np.array_equal(expected["stem.weight"], weights(tiny_model())["stem.weight"])


@pytest.mark.slow
def test_compiled_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    soft = SoftLabels(np.stack([LABELS, LABELS[::-1]]), np.full((2, 6), 0.5, np.float32))
    plain, report = one_step(soft, layer_decay=0.7)
    monkeypatch.setattr(step_module, "worth_compiling", lambda *_: True)
    fused, other = one_step(soft, layer_decay=0.7)
    assert other == pytest.approx(report, rel=1e-5)
    assert_close(fused, plain)
