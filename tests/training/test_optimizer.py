import math

import mlx.core as mx
import numpy as np
import pytest
from training.synthetic import CONFIG, PREPROCESS, Synthetic, tiny_model

from mixer_mlx.training.network import weights_of
from mixer_mlx.training.optimizer import (
    clip_factor,
    factors,
    global_norm,
    learning_rate,
    orthogonalized,
    rate_scales,
    update,
)
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.step import first_arrays, make_step


@pytest.mark.parametrize("warmup", [20, 0.2])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_schedule(schedule: str, warmup: float) -> None:
    recipe = Recipe(steps=100, lr=0.5, end_lr=0.1, warmup=warmup, schedule=schedule)
    rates = [learning_rate(recipe, step, 100) for step in range(101)]
    assert rates[:20] == pytest.approx([0.5 * (step + 1) / 20 for step in range(20)])
    assert rates[20] == pytest.approx(0.5)
    middle = {"linear": 0.3, "cosine": 0.3, "constant": 0.5}[schedule]
    assert rates[60] == pytest.approx(middle)
    quarter = {"linear": 0.4, "cosine": 0.1 + 0.2 * (1 + math.sqrt(0.5)), "constant": 0.5}[schedule]
    assert rates[40] == pytest.approx(quarter)
    assert rates[100] == pytest.approx(0.5 if schedule == "constant" else 0.1)


def test_without_warmup_and_warmup_longer_than_the_run() -> None:
    assert learning_rate(Recipe(steps=10, lr=1.0, warmup=0), 0, 10) == 1
    assert learning_rate(Recipe(steps=10, lr=1.0, warmup=100), 9, 10) == pytest.approx(0.1)


def test_clip() -> None:
    gradients = {"a": mx.array([3.0, 0.0]), "b": mx.array([[4.0]])}
    norm = global_norm(gradients)
    assert norm.item() == pytest.approx(5)
    assert clip_factor(norm, 1.0).item() == pytest.approx(0.2)
    assert clip_factor(norm, 6.0).item() == 1


def test_norm_of_half_precision_is_summed_in_float32() -> None:
    gradients = {"a": mx.full((100_000,), 3.0, mx.float16)}  # the sum of squares is 9e5
    assert global_norm(gradients).item() == pytest.approx(3 * math.sqrt(1e5), rel=1e-4)


@pytest.mark.parametrize(("count", "share"), [(1000, 0.1), (1, 0.9)])
def test_average(count: int, share: float) -> None:
    recipe = Recipe(steps=1, optimizer="sgd", momentum=0.0, ema_decay=0.9)
    one, w, e, v = mx.array(1.0), mx.array([1.5]), mx.array([1.0]), mx.array([0.0])
    f = factors(recipe, mx.array(float(count)), one, one, mx.array(True))
    arrays = {"weights": {"w": w}, "v": {"w": v}, "ema": {"w": e}}
    new = update(recipe, arrays, {"w": mx.array([-0.5])}, f)
    assert new["weights"]["w"].item() == pytest.approx(2)
    assert new["ema"]["w"].item() == pytest.approx((1 - share) * 1 + share * 2)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_update_that_is_not_good_leaves_every_bit(optimizer: str) -> None:
    recipe = Recipe(steps=1, optimizer=optimizer, weight_decay=0.1, ema_decay=0.9)
    mx.random.seed(1)
    moments = {"adamw": ("m", "v"), "muon": ("m",), "sgd": ("v",)}[optimizer]
    groups = ("weights", *moments, "ema")
    name = "blocks.0.channel_mixing.fc1.weight"  # one of Muon's
    arrays = {group: {name: mx.random.uniform(shape=(8, 8))} for group in groups}
    bad = mx.array(float("nan"))
    f = factors(recipe, mx.array(3.0), mx.array(0.1), bad, mx.array(False))
    new = update(recipe, arrays, {name: mx.zeros((8, 8))}, f)
    for group in groups:
        assert mx.array_equal(new[group][name], arrays[group][name]), group


@pytest.mark.parametrize("shape", [(6, 6), (6, 40), (40, 6)])
def test_orthogonalized_has_the_directions_of_the_svd(shape: tuple[int, int]) -> None:
    g = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    u, sizes, vt = np.linalg.svd(g, full_matrices=False)
    assert sizes.max() / sizes.min() > 1.5
    found = u.T @ np.array(orthogonalized(mx.array(g))) @ vt.T
    assert found - np.diag(np.diag(found)) == pytest.approx(0, abs=1e-5)
    assert (np.diag(found) > 0.65).all()
    assert (np.diag(found) < 1.25).all()


def test_muon_leaves_stem_head_and_vectors_to_adamw() -> None:
    recipe = Recipe(steps=1, optimizer="muon")
    arrays = first_arrays(weights_of(tiny_model()), recipe)
    kernels = {name for name, w in arrays["weights"].items() if w.ndim > 1}
    assert set(arrays["m"]) == set(arrays["weights"])
    assert set(arrays["m"]) - set(arrays["v"]) == kernels - {"stem.weight", "head.weight"}
    assert len(set(arrays["m"]) - set(arrays["v"])) == 2 * 4


def test_average_in_a_run() -> None:
    recipe = Recipe(steps=30, lr=0.01, ema_decay=0.6)
    step = make_step(CONFIG, recipe, PREPROCESS)
    arrays = first_arrays(weights_of(tiny_model()), recipe)
    expected = np.array(arrays["weights"]["stem.weight"]).astype(np.float64)
    for number, (pixels, labels) in enumerate(Synthetic(batches=30).epoch(0)):
        arrays, _ = step(arrays, {}, pixels, labels, number, 0.01)
        decay = min(0.6, (number + 1) / (number + 10))
        now = np.array(arrays["weights"]["stem.weight"])
        expected = decay * expected + (1 - decay) * now
    assert np.array(arrays["ema"]["stem.weight"]) == pytest.approx(expected, abs=1e-6)
    assert abs(now - expected).max() > 1e-3


def test_layer_decay() -> None:
    """The layers of BEiT's optim_factory.py, and of MAE's: stem 0, block i i + 1, the rest last."""
    expected = {
        "stem.weight": 0,
        "stem.bias": 0,
        "blocks.0.norm1.weight": 1,
        "blocks.0.token_mixing.fc2.bias": 1,
        "blocks.9.channel_mixing.fc1.weight": 10,
        "blocks.11.norm2.bias": 12,
        "norm.weight": 13,
        "norm.bias": 13,
        "head.weight": 13,
        "head.bias": 13,
    }
    scales = rate_scales(0.75, list(expected))
    assert scales == pytest.approx({name: 0.75 ** (13 - i) for name, i in expected.items()})
    trained = ["head.weight", "norm.weight", "blocks.11.norm1.bias", "blocks.10.norm1.bias"]
    assert rate_scales(0.5, trained) == dict(zip(trained, (1, 1, 0.5, 0.25), strict=True))
    assert rate_scales(0.5, ["head.weight"]) == {"head.weight": 1}
    assert set(rate_scales(1.0, list(expected)).values()) == {1}


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_decay_is_for_kernels_alone(optimizer: str) -> None:
    start = weights_of(tiny_model())
    found = []
    for decay in (0.0, 0.5):
        recipe = Recipe(steps=1, optimizer=optimizer, weight_decay=decay)
        step = make_step(CONFIG, recipe, PREPROCESS)
        pixels, labels = next(Synthetic().epoch(0))
        arrays, _ = step(first_arrays(start, recipe), {}, pixels, labels, 0, 0.01)
        found.append(arrays["weights"])
    for name, old in start.items():
        moved = np.array(found[1][name] - found[0][name])
        expected = np.array(-0.01 * 0.5 * old) if old.ndim > 1 else np.zeros(old.shape)
        assert moved == pytest.approx(expected, abs=2e-7), name
