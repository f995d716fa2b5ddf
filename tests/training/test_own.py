"""`fit` with a loss, an optimiser, a schedule, targets and metrics of one's own."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from training.synthetic import CONFIG, PREPROCESS, Synthetic, tiny_model, weights

from mixer_mlx import ConfigError, EpochDone, MlpMixer, Recipe, State, StepDone, TrainingError, fit
from mixer_mlx.analysis.ranking import average_precision
from mixer_mlx.training.loop import Event
from mixer_mlx.training.loss import example_losses, squared_error, targets

RECIPE = Recipe(epochs=2, lr=0.01, batch_size=6, warmup=0, schedule="constant", clip_norm=None)


def events(model: MlpMixer, recipe: Recipe = RECIPE, **options: object) -> Iterator[Event]:
    options = {"train": Synthetic(), "validate": None, "preprocess": PREPROCESS} | options
    return fit(model, recipe=recipe, **options)  # type: ignore[arg-type]


def cross_entropy(logits: mx.array, labels: mx.array) -> mx.array:
    return nn.losses.cross_entropy(logits, labels)


OPTIMIZERS: dict[str, Callable[[], optim.Optimizer]] = {
    "adamw": lambda: optim.AdamW(0.01, bias_correction=True, weight_decay=0.1),
    "lion": lambda: optim.Lion(0.001),
    "adafactor": lambda: optim.Adafactor(0.01, relative_step=False, scale_parameter=False),
    "scheduled": lambda: optim.SGD(optim.linear_schedule(0.1, 0.01, 8), momentum=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_of_mlx_does_what_it_does_in_a_plain_loop(name: str) -> None:
    model = tiny_model()
    losses = [
        event.loss
        for event in events(model, loss=cross_entropy, optimizer=OPTIMIZERS[name]())
        if isinstance(event, StepDone)
    ]
    plain, optimizer = tiny_model(), OPTIMIZERS[name]()

    def loss(images: mx.array, labels: mx.array) -> mx.array:
        return nn.losses.cross_entropy(plain(images), labels, reduction="mean")

    gradients, expected = nn.value_and_grad(plain, loss), []
    for epoch in range(2):
        for pixels, labels in Synthetic().epoch(epoch):
            images = mx.array(PREPROCESS.normalize(pixels))
            value, grads = gradients(images, mx.array(labels))
            optimizer.update(plain, grads)
            expected.append(value.item())
    np.testing.assert_allclose(losses, expected, rtol=2e-4)
    for key, value in weights(plain).items():
        if not key.endswith("token_mixing.fc2.bias"):  # their gradient is rounding alone
            np.testing.assert_allclose(weights(model)[key], value, rtol=2e-3, atol=2e-4)


def test_a_run_with_an_own_optimizer_resumes_bit_for_bit(tmp_path: Path) -> None:
    recipe = RECIPE.replace(ema_decay=0.9)
    options = {"loss": cross_entropy, "folder": tmp_path / "state"}
    whole, stopped, again = tiny_model(), tiny_model(), tiny_model(seed=1)
    list(events(whole, recipe, optimizer=OPTIMIZERS["scheduled"](), **options))
    for event in events(stopped, recipe, optimizer=OPTIMIZERS["scheduled"](), **options):
        if isinstance(event, StepDone) and event.step == 7:
            event.state.save(tmp_path / "state")
            break
    state = State.load(tmp_path / "state", again, OPTIMIZERS["scheduled"]())
    own = OPTIMIZERS["scheduled"]()
    found = list(events(again, recipe, optimizer=own, resume=state, **options))
    for key, value in weights(whole).items():
        np.testing.assert_array_equal(weights(again)[key], value, err_msg=key)
    assert next(e.lr for e in found if isinstance(e, StepDone)) == pytest.approx(0.1 - 7 * 0.09 / 8)
    with pytest.raises(ConfigError, match="the optimizer that the saved run began with"):
        next(events(again, recipe, resume=State.load(tmp_path / "state", again, own)))
    with pytest.raises(TrainingError, match=r"m/stem\.weight is missing"):
        State.load(tmp_path / "state", again)


def test_an_own_loss_is_the_recipe_s_when_it_is_the_same() -> None:
    one, other = tiny_model(), tiny_model()
    list(events(one))
    list(events(other, loss=cross_entropy))
    for key, value in weights(one).items():
        np.testing.assert_allclose(weights(other)[key], value, rtol=1e-4, atol=1e-6, err_msg=key)
    with pytest.raises(ConfigError, match=r"Expected a loss of shape \[\d\], .* not \[\]"):
        list(events(tiny_model(), loss=lambda x, y: cross_entropy(x, y).mean()))


def test_targets_per_class() -> None:
    """Against the formulas, in NumPy."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 5)).astype(np.float32)
    several = (rng.random((4, 5)) < 0.5).astype(np.float32)
    shares = (several + 0.1) / (several + 0.1).sum(1, keepdims=True)
    found = partial(example_losses, logits=mx.array(x))
    p = 1 / (1 + np.exp(-x.astype(np.float64)))
    t = 0.8 * several + 0.2 / 5
    binary = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(1)
    both = found("sigmoid", targets=targets(several, 0, 4), smoothing=0.2)
    np.testing.assert_allclose(both, binary, rtol=1e-5)
    log_p = x - np.log(np.exp(x.astype(np.float64)).sum(1, keepdims=True))
    soft = -((0.8 * shares + 0.2 / 5) * log_p).sum(1)
    mixed = found("softmax", targets=targets(shares, 0, 4), smoothing=0.2)
    np.testing.assert_allclose(mixed, soft, rtol=1e-5)
    np.testing.assert_allclose(
        squared_error(mx.array(x), mx.array(shares)), ((x - shares) ** 2).sum(1), rtol=1e-5
    )


class Several(Synthetic):
    """Images with a target per class: bright, dark, and neither."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # type: ignore[override]
        for pixels, labels in super().epoch(epoch, start):
            wanted = np.stack([labels > 2, labels < 3, labels == 2], axis=1)
            yield pixels, wanted.astype(np.float32)


def test_images_of_several_classes_are_learnt() -> None:
    config = CONFIG.replace(num_classes=3)
    model, data = tiny_model(config=config), Several(batches=8)

    def validate(model: MlpMixer) -> dict[str, float]:
        batches = list(data.epoch(0))
        scores = [np.array(model(mx.array(PREPROCESS.normalize(pixels)))) for pixels, _ in batches]
        found = average_precision(np.concatenate(scores), np.concatenate([t for _, t in batches]))
        return {"map": float(np.nanmean(found))}

    before = validate(model)["map"]
    recipe = RECIPE.replace(epochs=12, loss="sigmoid")
    found = list(events(model, recipe, train=data, validate=validate, score="map"))
    epochs = [event for event in found if isinstance(event, EpochDone)]
    assert epochs[-1].raw is not None
    assert epochs[-1].raw.scores["map"] > max(0.8, before)
    assert all(np.isnan(event.accuracy) for event in found if isinstance(event, StepDone))


class Brightness(Synthetic):
    """Images and how bright they are."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # type: ignore[override]
        for pixels, _ in super().epoch(epoch, start):
            yield pixels, pixels.mean(axis=(1, 2, 3)).astype(np.float32) / 255


def test_regression() -> None:
    model = tiny_model(config=CONFIG.replace(num_classes=1))
    recipe = RECIPE.replace(epochs=15)
    data = Brightness(batches=8)
    found = [
        event.loss
        for event in events(model, recipe, train=data, loss=squared_error)
        if isinstance(event, StepDone)
    ]
    assert np.mean(found[-8:]) < 0.05 * np.mean(found[:8])


def test_a_schedule() -> None:
    def rate(step: int, total: int) -> float:
        return 0.01 * (total - step)

    found = [e.lr for e in events(tiny_model(), schedule=rate) if isinstance(e, StepDone)]
    assert found == [0.01 * (10 - step) for step in range(10)]
    own = optim.SGD(1.0)
    found = [
        event.lr
        for event in events(tiny_model(), schedule=rate, optimizer=own)
        if isinstance(event, StepDone)
    ]
    assert found == [0.01 * (10 - step) for step in range(10)]
    assert own.learning_rate.item() == pytest.approx(0.01)
    with pytest.raises(ConfigError, match=r"The schedule gave -1\.0 for step 0"):
        next(events(tiny_model(), schedule=lambda step, total: -1))


@pytest.mark.parametrize(("score", "best"), [("a", 3), ("-a", 2), ("b", 1)])
def test_the_best_is_by_the_score(score: str, best: int) -> None:
    values = iter([(2.0, 1.0), (3.0, 5.0), (1.0, np.nan), (4.0, 2.0)])

    def validate(model: MlpMixer) -> dict[str, float]:
        return dict(zip("ab", next(values), strict=True))

    found = list(events(tiny_model(), RECIPE.replace(epochs=4), validate=validate, score=score))
    assert found[-1].state.progress.best_epoch == best
    with pytest.raises(ConfigError, match="no metric 'c' to score by, only a, b"):
        list(events(tiny_model(), validate=lambda _: {"a": 1.0, "b": 2.0}, score="c"))


def test_a_complete_run_is_extended(tmp_path: Path) -> None:
    model = tiny_model()
    list(events(model, folder=tmp_path / "state"))
    state = State.load(tmp_path / "state", model)
    assert state.progress.end == "done"
    found = list(events(model, resume=state, extend=3))
    assert [event.step for event in found if isinstance(event, StepDone)] == list(range(11, 26))
    assert found[-1].state.recipe == RECIPE.replace(epochs=5)
    # At a constant rate, the run is the one that was as long from the start.
    whole = tiny_model()
    list(events(whole, RECIPE.replace(epochs=5)))
    for key, value in weights(whole).items():
        np.testing.assert_array_equal(weights(model)[key], value, err_msg=key)
    # Also one that ended within an epoch.
    part, recipe = tiny_model(), RECIPE.replace(epochs=None, steps=7)
    ended = list(events(part, recipe))[-1].state
    assert [
        e.step for e in events(part, recipe, resume=ended, extend=8) if isinstance(e, StepDone)
    ] == [*range(8, 16)]
    whole = tiny_model()
    list(events(whole, RECIPE.replace(epochs=3)))
    for key, value in weights(whole).items():
        np.testing.assert_array_equal(weights(part)[key], value, err_msg=key)
    with pytest.raises(ConfigError, match="extend is -1"):
        next(events(model, resume=state, extend=-1))


def test_average_precision_is_scikit_learn_s() -> None:
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 8, (40, 4)) / 8  # many of them equal
    wanted = (rng.random((40, 4)) < [0.1, 0.5, 0.9, 0.3]).astype(int)
    # sklearn.metrics.average_precision_score of each column, scikit-learn 1.9.1
    expected = [0.35540505676, 0.552652245306, 0.952998247116, 0.565680933102]
    np.testing.assert_allclose(average_precision(scores, wanted), expected, atol=1e-11)
    assert np.isnan(average_precision([[1.0]], [[0]])[0])
    with pytest.raises(ConfigError, match="targets of 0 and 1"):
        average_precision([[1.0]], [[2]])
