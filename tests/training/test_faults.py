"""What `fit` refuses before MLX sees it, and what it leaves alone."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from numpy.typing import NDArray
from training.synthetic import CONFIG, PREPROCESS, Synthetic, tiny_model, weights

from mixer_mlx import MlpMixer, Preprocess
from mixer_mlx.data.mixing import SoftLabels
from mixer_mlx.errors import BackendError, ConfigError
from mixer_mlx.runtime import worker
from mixer_mlx.training.find_lr import try_rates
from mixer_mlx.training.loop import Done, fit
from mixer_mlx.training.loss import sigmoid_loss, softmax_loss
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.state import State

RECIPE = Recipe(epochs=2, lr=0.01)


class Batches:
    """The synthetic images, with targets made of their labels."""

    def __init__(self, target: Callable[[NDArray[np.int32]], Any], pixels: Any = None) -> None:
        self.data, self.target = Synthetic(), target
        self.change = pixels or (lambda images: images)

    def __len__(self) -> int:
        return len(self.data)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
        for pixels, labels in self.data.epoch(epoch, start):
            yield self.change(pixels), self.target(labels)


def last(batches: Any, model: MlpMixer | None = None, recipe: Recipe = RECIPE, **own: Any) -> State:
    events = fit(model or tiny_model(), batches, None, recipe, preprocess=PREPROCESS, **own)
    *_, done = events
    assert isinstance(done, Done)
    return done.state


def same(one: State, other: State) -> bool:
    return all(
        mx.array_equal(w, other.arrays[group][name])
        for group, part in one.arrays.items()
        for name, w in part.items()
    )


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (5, "label 5, but the model has the classes 0 to 4; if they count from 1, subtract 1"),
        (1000, "label 1000, .*give the model a head for all classes"),
        (-1, "label -1, .*leave out images without a class"),
        (2**31 - 1, "label 2147483647"),
    ],
)
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_labels_that_are_not_classes(label: int, message: str, loss: str) -> None:
    def wrong(labels: NDArray[np.int32]) -> Any:
        return np.append(labels[1:], label).astype(np.int32)

    def mixed(labels: NDArray[np.int32]) -> Any:
        both = np.stack([labels, wrong(labels)])
        return SoftLabels(both, np.full(both.shape, 0.5, np.float32))

    for target in (wrong, mixed, lambda labels: wrong(labels).astype(np.int64)):
        model = tiny_model()
        before = weights(model)
        with pytest.raises(ConfigError, match=message):
            last(Batches(target), model, RECIPE.replace(loss=loss))
        after = weights(model)
        assert all(np.array_equal(after[name], w) for name, w in before.items())
    with pytest.raises(ConfigError, match=message):
        list(try_rates(tiny_model(), Batches(wrong), RECIPE, PREPROCESS))


@pytest.mark.parametrize("loss", [softmax_loss, sigmoid_loss])
def test_losses_never_read_beyond_the_logits(loss: Any) -> None:
    logits = mx.array([[0.5, 0.1], [0.2, 0.3], [1.0, 2.0]])
    found = np.array(loss(logits, mx.array([1, 10**9, -1]), 0.0))
    assert np.isfinite(found).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "target",
    [
        lambda labels: labels.astype(np.float32),
        lambda labels: labels[:-1],
        lambda labels: labels[:, None],
        lambda labels: labels.tolist(),
        lambda labels: mx.array(labels),
        lambda labels: SoftLabels(labels, np.ones(len(labels), np.float32)),
        lambda labels: SoftLabels(labels[None], np.full((1, len(labels)), np.nan, np.float32)),
        lambda labels: SoftLabels(labels[None], np.ones((2, len(labels)), np.float32)),
    ],
)
def test_labels_of_other_kinds(target: Any) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        last(Batches(target))


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: ((pixels / 255 - 0.5) / 0.25).astype(np.float32),
        lambda pixels: pixels.astype(np.uint16),
        lambda pixels: pixels[:, :4],
        lambda pixels: pixels.transpose(0, 3, 1, 2),
        lambda pixels: mx.array(pixels),
    ],
)
def test_pixels_that_are_not_the_models(change: Any) -> None:
    with pytest.raises(ConfigError, match="uint8 and shape"):
        last(Batches(lambda labels: labels, change))


def test_mixtures_under_the_sigmoid_loss_sum_to_one() -> None:
    def half(labels: NDArray[np.int32]) -> SoftLabels:
        return SoftLabels(labels[None], np.full((1, len(labels)), 0.5, np.float32))

    with pytest.raises(ConfigError, match=r"sum to 0\.5"):
        last(Batches(half), recipe=RECIPE.replace(loss="sigmoid"))
    last(Batches(half))  # softmax's loss is linear in the target
    last(Batches(half), recipe=RECIPE.replace(loss="sigmoid", balance="loss"))


def test_frozen_parameters_stay(tmp_path: Path) -> None:
    """Also after resuming with a model that isn't frozen, bit for bit."""
    model = tiny_model()
    model.freeze()
    model.blocks[1].channel_mixing.unfreeze()
    model.head.unfreeze()
    before = weights(model)
    straight = last(Synthetic(), model, RECIPE.replace(ema_decay=0.5))
    after = weights(model)
    for name, w in before.items():
        trained = name.startswith(("head.", "blocks.1.channel_mixing."))
        assert np.array_equal(after[name], w) != trained, name
    again = tiny_model()
    again.freeze()
    again.blocks[1].channel_mixing.unfreeze()
    again.head.unfreeze()
    recipe = RECIPE.replace(ema_decay=0.5)
    events = fit(again, Synthetic(), None, recipe, preprocess=PREPROCESS, folder=tmp_path / "state")
    list(islice(events, 7))
    events.close()  # type: ignore[attr-defined]
    other = tiny_model(seed=1)
    state = State.load(tmp_path / "state", other)
    assert same(last(Synthetic(), other, recipe, resume=state), straight)


def test_models_that_can_not_be_trained() -> None:
    headless = tiny_model(config=CONFIG.replace(num_classes=0))
    with pytest.raises(ConfigError, match=r"no head to train.*with_head"):
        last(Synthetic(), headless)
    frozen = tiny_model()
    frozen.freeze()
    with pytest.raises(ConfigError, match="frozen"):
        last(Synthetic(), frozen)
    replaced = tiny_model()
    replaced.head = nn.Linear(12, 9)
    with pytest.raises(ConfigError, match="with_head"):
        last(Synthetic(), replaced)
    for other in (Preprocess((8, 8)), Preprocess((8, 12), mean=(0.5,), std=(0.5,))):
        with pytest.raises(ConfigError, match="preprocess makes"):
            list(fit(tiny_model(), Synthetic(), None, RECIPE, preprocess=other))


def test_a_forked_process_does_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_forked", True)
    with pytest.raises(BackendError, match="spawn"):
        last(Synthetic())


def test_a_run_with_several_optimizers_resumes_bit_for_bit(tmp_path: Path) -> None:
    """MLX's MultiOptimizer returns the weights in another order."""

    def make() -> optim.Optimizer:
        return optim.MultiOptimizer(
            [optim.Lion(1e-3), optim.SGD(0.01, momentum=0.9)],
            [lambda name, w: name.startswith("blocks.")],
        )

    recipe = RECIPE.replace(save_every=1)
    straight = last(Synthetic(), recipe=recipe, optimizer=make())
    events = fit(
        tiny_model(), Synthetic(), None, recipe, preprocess=PREPROCESS, folder=tmp_path / "state",
        optimizer=make(),
    )  # fmt: skip
    list(islice(events, 14))
    events.close()  # type: ignore[attr-defined]
    model, optimizer = tiny_model(seed=1), make()
    state = State.load(tmp_path / "state", model, optimizer)
    assert 0 < state.progress.step < 10
    assert same(last(Synthetic(), model, recipe, resume=state, optimizer=optimizer), straight)


@pytest.mark.parametrize(
    "target",
    [
        lambda labels: labels[:-1],
        lambda labels: np.where(labels == 0, np.nan, labels),
        lambda labels: labels.tolist(),
        lambda labels: mx.array(labels),
    ],
)
def test_targets_of_an_own_loss(target: Any) -> None:
    with pytest.raises(ConfigError, match="finite targets"):
        last(Batches(target), loss=lambda logits, targets: (logits[:, 0] - targets) ** 2)


def test_targets_of_several_classes() -> None:
    for wrong in (np.zeros((6, 4), np.float32), np.full((6, 5), np.nan, np.float32)):
        with pytest.raises(ConfigError, match=r"shape \(6, 5\)"):
            last(Batches(lambda labels, wrong=wrong: wrong), recipe=RECIPE.replace(loss="sigmoid"))
