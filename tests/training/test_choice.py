"""Which weights a run keeps at its end."""

import math
from pathlib import Path
from statistics import fmean, stdev

import mlx.core as mx
import numpy as np
import pytest
from training.synthetic import PREPROCESS, Synthetic, tiny_model, weights

from mixer_mlx import MlpMixer, Recipe, evaluate, fit
from mixer_mlx.analysis.evaluate import Metrics
from mixer_mlx.lora import fused
from mixer_mlx.training.choice import MARGIN, chosen
from mixer_mlx.training.loop import EpochDone, StepDone
from mixer_mlx.training.run_log import Best
from mixer_mlx.training.state import State

RECIPE = Recipe(epochs=2, lr=0.02, ema_decay=0.9, best_by="halfway")


def measured(*losses: float) -> Metrics:
    return Metrics(0.5, 1.0, fmean(losses), len(losses), 1.0, losses=losses)


# The differences to the lowest are 0.1 +- 0.2, or 0.1 +- 0.02, over the five images.
LOWEST = (0.5, 0.6, 0.7, 0.8, 0.9)
SPREAD = tuple(a + 0.1 + d for a, d in zip(LOWEST, (0.4, -0.3, 0.3, -0.4, 0.0), strict=True))
STEADY = tuple(a + 0.1 + d for a, d in zip(LOWEST, (0.02, -0.02, 0.02, -0.02, 0.0), strict=True))


def test_halfway_is_kept_unless_another_is_clearly_better() -> None:
    differences = [a - b for a, b in zip(SPREAD, LOWEST, strict=True)]
    assert 0 < fmean(differences) - MARGIN * stdev(differences) / math.sqrt(5) < 0.03
    assert fmean(differences) < 0.7 * stdev(differences) / math.sqrt(5)

    low, spread, steady = (measured(*losses) for losses in (LOWEST, SPREAD, STEADY))
    close = measured(*(a + 0.5 * (b - a) for a, b in zip(LOWEST, STEADY, strict=True)))
    noisy = measured(*(b - 0.03 for b in SPREAD))
    assert chosen({"raw": spread, "halfway": noisy, "start": low}) == "halfway"
    assert chosen({"raw": noisy, "halfway": steady, "start": low}) == "raw"
    assert chosen({"raw": steady, "halfway": close, "start": low}) == "start"
    assert chosen({"raw": steady, "ema": low, "halfway": steady, "start": steady}) == "ema"
    assert chosen({"raw": low, "ema": low, "halfway": low, "start": low}) == "halfway"


def test_a_loss_that_is_not_finite_is_never_kept() -> None:
    wild, low = measured(math.nan, 1.0), measured(0.5, 0.5)
    assert chosen({"raw": wild, "halfway": wild, "start": low}) == "start"
    assert chosen({"raw": low, "ema": wild, "halfway": wild, "start": wild}) == "raw"


def test_without_losses_of_images_the_mean_decides() -> None:
    one, two = (Metrics(0.5, 1.0, loss, 10, 1.0) for loss in (1.0, 1.1))
    assert chosen({"raw": one, "halfway": two, "start": two}) == "raw"


def validate(model: MlpMixer) -> Metrics:
    return evaluate(
        lambda pixels: model(mx.array(PREPROCESS.normalize(pixels))), Synthetic().epoch(9)
    )


def test_losses_are_those_of_the_images() -> None:
    found = validate(tiny_model())
    assert fmean(found.losses) == pytest.approx(found.loss, rel=1e-6)
    assert len(set(found.losses)) > 20
    assert "losses" not in found.to_dict()


def test_the_end_of_a_run_measures_the_mean_of_start_and_average(tmp_path: Path) -> None:
    model = tiny_model()
    first = {name: np.array(w) for name, w in weights(model).items()}
    seen: list[dict[str, np.ndarray]] = []

    def noted(model: MlpMixer) -> Metrics:
        seen.append({name: np.array(w) for name, w in weights(model).items()})
        return validate(model)

    for event in fit(model, Synthetic(), noted, RECIPE, preprocess=PREPROCESS):
        if isinstance(event, StepDone) and event.step == 7:
            event.state.save(tmp_path / "state")
        if isinstance(event, EpochDone):
            last = event
    *_, _raw, ema, halfway, start = seen
    assert len(seen) == 6
    for name, values in first.items():
        assert np.array_equal(start[name], values)
        assert np.allclose(halfway[name], (values.astype(np.float64) + ema[name]) / 2, atol=1e-7)
    assert last.halfway is not None
    assert last.best == chosen(
        {"raw": last.raw, "ema": last.ema, "halfway": last.halfway, "start": last.start}  # type: ignore[dict-item]
    )

    other = tiny_model(seed=1)
    state = State.load(tmp_path / "state", other)
    *_, again = (
        event
        for event in fit(other, Synthetic(), validate, RECIPE, preprocess=PREPROCESS, resume=state)
        if isinstance(event, EpochDone)
    )
    assert again.halfway.losses == last.halfway.losses  # type: ignore[union-attr]
    assert again.start.losses == last.start.losses  # type: ignore[union-attr]


def test_halfway_of_adapters_is_the_mean_of_their_products() -> None:
    state = None
    recipe = RECIPE.replace(lora_rank=2, epochs=1)
    for event in fit(tiny_model(), Synthetic(), validate, recipe, preprocess=PREPROCESS):
        state = event.state
    assert state is not None
    found = {}
    for name in ("start", "halfway", "ema"):
        model = tiny_model()
        state.fill(model, name)  # type: ignore[arg-type]
        found[name] = weights(fused(model))
    for name, values in found["halfway"].items():
        mean = (np.array(found["start"][name]) + np.array(found["ema"][name])) / 2
        assert np.allclose(np.array(values), mean, atol=1e-5)
    assert any((np.array(found["start"][n]) != np.array(w)).any() for n, w in found["ema"].items())


@pytest.mark.parametrize(
    ("epoch", "kind", "where"),
    [
        (-1, "start", "the fitted head, before training"),
        (4, "halfway", "halfway between the start and epoch 5"),
        (4, "ema", "EMA weights of epoch 5"),
    ],
)
def test_the_best_weights_in_words(epoch: int, kind: str, where: str) -> None:
    assert Best(epoch, kind, {}).where == where
