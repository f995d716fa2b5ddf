"""When a run validates, cools down and ends, and how a fitted head starts it."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from training.synthetic import CONFIG, PREPROCESS, Synthetic, tiny_model, weights
from training.test_resume import assert_same

from mixer_mlx import MlpMixer, Recipe
from mixer_mlx.analysis.evaluate import Metrics
from mixer_mlx.errors import TrainingError
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.training import prepare
from mixer_mlx.training.loop import Done, EpochDone, Event, StepDone, fit
from mixer_mlx.training.prepare import with_ridge_head
from mixer_mlx.training.state import State

# Five steps an epoch: validation after every second one; the first validation is the best.
RECIPE = Recipe(epochs=20, lr=0.01, ema_decay=0.9, patience=2, cooldown=0.5, validate_every=6)


def events(recipe: Recipe = RECIPE, **options: object) -> list[Event]:
    model = tiny_model()
    return list(fit(model, Synthetic(), same, recipe, preprocess=PREPROCESS, **options))  # type: ignore[arg-type]


def same(model: MlpMixer) -> Metrics:
    return Metrics(0.5, 1.0, 1.0, 10, 1.0)


def test_when_patience_has_run_out_the_rate_falls_to_zero() -> None:
    found = events()
    assert [e.step for e in found if isinstance(e, EpochDone)] == [10, 20, 30, 40, 45]
    rates = [e.lr for e in found if isinstance(e, StepDone)]
    assert rates[30:] == pytest.approx([rates[30] * (1 - i / 15) for i in range(15)])
    assert rates[29] > rates[30] > 0.005  # still the cosine's
    done = found[-1]
    assert isinstance(done, Done)
    assert (done.step, done.stopped) == (45, True)


@pytest.mark.parametrize("stop", [24, 33])
def test_a_run_that_cools_down_resumes_bit_for_bit(stop: int, tmp_path: Path) -> None:
    expected = events()[-1].state
    model = tiny_model()
    for event in fit(model, Synthetic(), same, RECIPE, preprocess=PREPROCESS):
        if isinstance(event, StepDone) and event.step == stop:
            event.state.save(tmp_path / "state")
            break
    state = State.load(tmp_path / "state", tiny_model(seed=1))
    assert_same(events(resume=state)[-1].state, expected)


@pytest.mark.parametrize(
    ("best_by", "expected"),
    [("halfway", ["raw", "raw", None, "start"]), ("top1", ["raw", "raw", "raw", None])],
)
def test_best_by_loss_until_the_end(best_by: str, expected: list[str | None]) -> None:
    pairs = iter([(0.5, 1.2), (0.5, 1.1), (0.6, 1.3), (0.4, 1.15), (0.5, 1.25), (0.5, 1.05)])

    def validate(model: MlpMixer) -> Metrics:
        top1, loss = next(pairs)
        return Metrics(top1, 1.0, loss, 10, 1.0)

    recipe = Recipe(epochs=4, lr=0.01).replace(best_by=best_by)
    run = fit(tiny_model(), Synthetic(), validate, recipe, preprocess=PREPROCESS)
    assert [event.best for event in run if isinstance(event, EpochDone)] == expected


def test_a_stopped_run_can_be_extended() -> None:
    stopped = events()[-1].state
    done = events(resume=stopped, extend=1)[-1]
    assert isinstance(done, Done)
    assert done.step > 45
    assert stopped.recipe.epochs == 21


def test_a_damaged_cooldown_is_refused(tmp_path: Path) -> None:
    events()[-1].state.save(tmp_path / "state")
    path = tmp_path / "state" / "state.json"
    path.write_text(path.read_text().replace('"cooled_to": 45', '"cooled_to": 20'))
    with pytest.raises(TrainingError, match="cooled_from"):
        State.load(tmp_path / "state", tiny_model())


@pytest.mark.parametrize(("images", "steps"), [(50, 100), (1000, 620), (5000, 1500)])
def test_steps_grow_with_the_images_between_two_limits(images: int, steps: int) -> None:
    recipe = Recipe(epochs=20, min_steps=100, max_steps=1500)
    assert recipe.total_steps(max(1, images // 32)) == steps
    assert recipe.replace(epochs=3).total_steps(5) == 15


def test_a_fitted_head_is_validated_before_the_first_step() -> None:
    first = events(RECIPE.replace(head="ridge", epochs=2))[0]
    assert isinstance(first, EpochDone)
    assert (first.step, first.epoch, first.best, first.ema) == (0, -1, "raw", None)


def test_a_start_that_training_has_not_reached_yet_ends_no_run() -> None:
    """Validations fall from 3.0 towards 1.0, that of the start; after the fifth they rise."""
    losses = iter([1.0, 3.0, 2.5, 2.0, 1.5, 1.2, 1.3, 1.4, 1.5, 1.6])

    def validate(model: MlpMixer) -> Metrics:
        loss = next(losses)
        return Metrics(0.5, 1.0, loss, 10, 1.0)

    recipe = Recipe(epochs=20, lr=0.01, head="ridge", patience=3)
    run = fit(tiny_model(), Synthetic(), validate, recipe, preprocess=PREPROCESS)
    found = [event for event in run if isinstance(event, EpochDone)]
    assert [event.best for event in found] == ["raw", *8 * [None]]
    assert found[-1].state.progress.end == "stopped"
    assert found[-1].state.progress.improved_epoch == 4


class Images:
    """What `with_ridge_head` reads of a dataset: images by index, and labels."""

    def __init__(self) -> None:
        self.data = Synthetic()
        self.dataset = self

    @property
    def labels(self) -> np.ndarray:
        return self.data.labels

    def __len__(self) -> int:
        return len(self.data.labels)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.data.pixels[index])


def test_the_fitted_head_is_the_ridge_solution_on_the_features() -> None:
    """Up to the factor that scales it, by least squares."""
    images, model = Images(), tiny_model()
    info = ModelInfo(CONFIG, PREPROCESS, tuple("abcde"))
    trained = weights(model)["head.weight"]
    with_ridge_head(model, info, images, 7)  # type: ignore[arg-type]
    assert np.array_equal(weights(model)["head.weight"], trained)  # a head that isn't new stays

    model.head.weight = mx.zeros_like(model.head.weight)
    with_ridge_head(model, info, images, 7)  # type: ignore[arg-type]
    pixels = np.stack([PREPROCESS(images[i]) for i in range(len(images))])
    x = mx.array(PREPROCESS.normalize(pixels))
    features = np.array(model.pool(_blocks(model, x)))
    logits = np.array(model(x))
    z = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-5)
    z = np.pad(z.astype(np.float64), ((0, 0), (0, 1)), constant_values=100.0)
    y = 2.0 * np.eye(5)[images.labels] - 1
    # The normal equations, by least squares on the augmented system.
    stacked = np.vstack([z, np.sqrt(2.0**10) * np.eye(z.shape[1])])
    solution = np.linalg.lstsq(stacked, np.vstack([y, np.zeros((z.shape[1], 5))]), rcond=None)[0]
    scores = z @ solution
    scale = (logits * scores).sum() / (scores * scores).sum()
    assert 1 <= scale <= 64
    assert np.abs(logits - scale * scores).max() < 1e-3


def test_a_head_for_more_classes_than_images_can_tell_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prepare, "RIDGE_SCORES", 24)  # five classes, so four images
    images, model = Images(), tiny_model()
    model.head.weight = mx.zeros_like(model.head.weight)
    assert [prepare.takes_ridge_head(model, classes) for classes in (4, 5)] == [True, False]
    prepare.with_ridge_head(model, ModelInfo(CONFIG, PREPROCESS, tuple("abcde")), images, 7)  # type: ignore[arg-type]
    assert not weights(model)["head.weight"].any()


def _blocks(model: MlpMixer, x: mx.array) -> mx.array:
    x = model.embed(x)
    for block in model.blocks:
        x = block(x)
    return x
