import mlx.core as mx
import numpy as np
import pytest
from training.synthetic import CONFIG, PREPROCESS, Synthetic, tiny_model

from mixer_mlx import VARIANTS, MixerConfig, MlpMixer, Preprocess
from mixer_mlx.training import step as step_module
from mixer_mlx.training.network import trained_names, weights_of
from mixer_mlx.training.optimizer import Weights
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.step import REPORT, Arrays, first_arrays, make_step

PIXELS, LABELS = next(Synthetic(batches=1, batch_size=12).epoch(0))


def run(
    recipe: Recipe, steps: int = 1, weights: Weights | None = None, lr: float = 0.05
) -> tuple[Arrays, list[dict[str, float]]]:
    """Steps on one batch, all but the first part of the weights trained as the recipe says."""
    weights = weights_of(tiny_model()) if weights is None else weights
    trained = trained_names(CONFIG, recipe, list(weights))
    arrays = first_arrays({name: weights[name] for name in trained}, recipe)
    frozen = {name: w for name, w in weights.items() if name not in trained}
    step, reports = make_step(CONFIG, recipe, PREPROCESS), []
    for number in range(steps):
        arrays, report = step(arrays, frozen, PIXELS, LABELS, number, lr)
        reports.append(dict(zip(REPORT, report.tolist(), strict=True)))
    return arrays, reports


def sgd(**changes: object) -> Recipe:
    """Whose velocity, after one step, is the gradient."""
    return Recipe(steps=1, optimizer="sgd", clip_norm=None, **changes)  # type: ignore[arg-type]


def distance(one: Weights, other: Weights) -> float:
    """The largest difference, relative to the largest value of all."""
    assert set(one) == set(other)
    largest = max(mx.abs(value).max().item() for value in other.values())
    return max(mx.abs(one[name] - other[name]).max().item() for name in one) / largest


def test_the_loss_is_that_of_the_model_on_normalised_pixels() -> None:
    _, (report,) = run(sgd())
    model = tiny_model()
    logits = np.array(model(mx.array(PREPROCESS.normalize(PIXELS)))).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert report["loss"] == pytest.approx(-log_p[np.arange(12), LABELS].mean(), rel=1e-5)
    assert report["accuracy"] == pytest.approx((logits.argmax(1) == LABELS).mean())


@pytest.mark.parametrize("parts", [2, 3, 5, 12])  # 5: parts of 3, 3, 3, 3; 12: one image each
@pytest.mark.parametrize("noise", [{}, {"drop_path": 0.5, "dropout": 0.2}])
def test_accumulation_is_the_large_batch(parts: int, noise: dict[str, float]) -> None:
    whole, (one,) = run(sgd(**noise))
    found, (other,) = run(sgd(accumulation=parts, **noise))
    assert distance(found["v"], whole["v"]) < 1e-5
    assert distance(found["weights"], whole["weights"]) < 1e-5
    assert other == pytest.approx(one, rel=1e-5)


def test_checkpointing_changes_nothing() -> None:
    noise = {"drop_path": 0.5, "drop_path_rescale": True, "dropout": 0.2}
    plain, _ = run(sgd(**noise), steps=3)
    again, _ = run(sgd(gradient_checkpointing=True, **noise), steps=3)
    assert distance(again["weights"], plain["weights"]) < 1e-6


def test_noise_differs_from_step_to_step_and_seed_to_seed() -> None:
    still = {"weights": weights_of(tiny_model()), "lr": 0.0}
    _, reports = run(sgd(drop_path=0.5), steps=3, **still)  # type: ignore[arg-type]
    _, others = run(sgd(drop_path=0.5, seed=1), steps=3, **still)  # type: ignore[arg-type]
    assert len({report["loss"] for report in reports + others}) == 6


def test_frozen_backbone_trains_the_head_alone() -> None:
    recipe = sgd(freeze="backbone")
    head, (report,) = run(recipe)
    full, (all_of_it,) = run(sgd())
    assert set(head["weights"]) == {"head.weight", "head.bias"}
    assert report["loss"] == all_of_it["loss"]
    for name, gradient in head["v"].items():
        assert np.array(gradient) == pytest.approx(np.array(full["v"][name]), abs=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str) -> None:
    exact, (one,) = run(sgd())
    found, (other,) = run(sgd(dtype=dtype))
    assert {value.dtype for part in found.values() for value in part.values()} == {mx.float32}
    assert distance(found["v"], exact["v"]) < (3e-3 if dtype == "float16" else 2e-2)
    assert 0 < abs(other["loss"] - one["loss"]) < (3e-3 if dtype == "float16" else 3e-2)


def test_loss_scaling_saves_small_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_of(tiny_model())
    weights["head.weight"] = weights["head.weight"] * 1e-3  # what flows back is about 1e-6
    exact, _ = run(sgd(), weights=weights)
    scaled, _ = run(sgd(dtype="float16"), weights=weights)
    monkeypatch.setattr(step_module, "FIRST_LOSS_SCALE", 1.0)
    plain, _ = run(sgd(dtype="float16"), weights=weights)
    stem = [{"stem.weight": arrays["v"]["stem.weight"]} for arrays in (scaled, plain, exact)]
    assert distance(stem[0], stem[2]) < 0.005 < distance(stem[1], stem[2])


def test_an_overflow_in_float16_skips_the_step_and_halves_the_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step_module, "FIRST_LOSS_SCALE", 2.0**30)
    recipe = Recipe(steps=1, dtype="float16", ema_decay=0.9)
    before = first_arrays(weights_of(tiny_model()), recipe)
    arrays, (report,) = run(recipe)
    assert report["skipped"] == 1
    assert report["failed"] == 0
    for group in ("weights", "m", "v", "ema"):
        for name, value in arrays[group].items():
            assert mx.array_equal(value, before[group][name])
    assert arrays["counters"]["loss_scale"].item() == 2**29
    assert arrays["counters"]["updates"].item() == 0
    arrays, reports = run(recipe, steps=30)
    skipped = [report["skipped"] for report in reports]
    assert skipped == sorted(skipped, reverse=True)
    assert arrays["counters"]["updates"].item() == 30 - sum(skipped) > 0


def test_the_scale_doubles_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_module, "SCALE_GROWS_AFTER", 3)
    monkeypatch.setattr(step_module, "FIRST_LOSS_SCALE", 8.0)
    _, reports = run(Recipe(steps=1, dtype="float16"), steps=7, lr=0.001)
    assert [report["loss_scale"] for report in reports] == [8, 8, 8, 16, 16, 16, 32]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_loss_that_is_no_number_changes_nothing_from_then_on(dtype: str) -> None:
    recipe = Recipe(steps=1, dtype=dtype, ema_decay=0.9)
    weights = weights_of(tiny_model())
    weights["head.bias"] = mx.array([np.nan, 0, 0, 0, 0], mx.float32)
    before = first_arrays(weights, recipe)
    arrays, reports = run(recipe, steps=2, weights=weights)
    assert [report["failed"] for report in reports] == [1, 1]
    for group in ("weights", "m", "v", "ema"):
        for name, value in arrays[group].items():
            assert mx.array_equal(value, before[group][name], equal_nan=True)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(steps=1, drop_path=0.3, ema_decay=0.9, weight_decay=0.1, accumulation=2),
        pytest.param(
            Recipe(
                steps=1, optimizer="sgd", loss="sigmoid", gradient_checkpointing=True, dropout=0.2
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_compiled_or_not(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, one = run(recipe, steps=3)
    compiled: list[bool] = []
    monkeypatch.setattr(step_module, "worth_compiling", lambda *_: compiled.append(True) or True)
    fused, other = run(recipe, steps=3)
    assert compiled
    for report, expected in zip(other, one, strict=True):
        assert report == pytest.approx(expected, rel=1e-4)
    for group in ("weights", "v"):
        found, wanted = (without_noise(arrays[group]) for arrays in (fused, plain))
        assert distance(found, wanted) < 1e-4


def without_noise(weights: Weights) -> Weights:
    """All but those whose gradient is zero, see test_golden.py."""
    return {name: w for name, w in weights.items() if not name.endswith("token_mixing.fc2.bias")}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("depth", [1, pytest.param(None, marks=pytest.mark.slow)])
def test_every_variant_makes_a_step(name: str, depth: int | None) -> None:
    side = 2 * VARIANTS[name]["patch_size"]
    config = MixerConfig.variant(name, image_size=side, num_classes=3)
    config = config.replace(num_blocks=depth or config.num_blocks)
    recipe = Recipe(steps=1, optimizer="sgd")
    weights = weights_of(MlpMixer(config))
    step = make_step(config, recipe, Preprocess(image_size=(side, side)))
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    labels = np.array([0, 2], np.int32)
    arrays, report = step(first_arrays(weights, recipe), {}, pixels, labels, 0, 0.01)
    loss = report[0].item()
    assert loss == pytest.approx(np.log(3), rel=1e-5)  # the head starts at zero
    assert mx.abs(arrays["weights"]["head.weight"]).max().item() > 0
