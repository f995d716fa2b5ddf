"""Losses, gradients and ten steps against PyTorch's; see tests/reference/make_training.py."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from training.synthetic import CONFIG, PREPROCESS

from mixer_mlx.convert.names import TIMM
from mixer_mlx.training.optimizer import Weights, learning_rate
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.step import first_arrays, make_step

STEPS = 10
COMMON = {
    "steps": STEPS,
    "batch_size": 6,
    "warmup": 3,
    "schedule": "cosine",
    "end_lr": 1e-4,
    "label_smoothing": 0.1,
    "clip_norm": 1.0,
}
RECIPES = {
    "adamw": Recipe(optimizer="adamw", lr=0.01, weight_decay=0.1, **COMMON),
    "sgd": Recipe(optimizer="sgd", lr=0.1, momentum=0.9, **COMMON),
    "layers": Recipe(optimizer="adamw", lr=0.01, weight_decay=0.1, layer_decay=0.7, **COMMON),
    "muon": Recipe(optimizer="muon", lr=0.01, momentum=0.95, weight_decay=0.1, **COMMON),
}


@pytest.fixture(scope="module")
def theirs(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "training.npz") as file:
        return dict(file)


def ours(theirs: dict[str, np.ndarray], prefix: str) -> Weights:
    """Their arrays under our names, with our axes."""
    return {
        name: mx.array(array if axes is None else array.transpose(axes))
        for name, (foreign, axes) in TIMM.names(CONFIG.num_blocks, head=True).items()
        for array in [theirs[f"{prefix}/{foreign}"]]
    }


def assert_close(found: Weights, expected: Weights) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        off = mx.abs(found[name] - value).max() / mx.abs(value).max()
        assert off.item() < 1e-4 or is_noise(name), name


def is_noise(name: str) -> bool:
    """This bias moves all channels of a token alike, and every layer norm takes that out again.

    Its gradient is zero but for rounding, which AdamW blows up to full steps.
    """
    return name.endswith("token_mixing.fc2.bias")


@pytest.mark.parametrize("name", RECIPES)
def test_ten_steps(theirs: dict[str, np.ndarray], name: str) -> None:
    recipe = RECIPES[name]
    step = make_step(CONFIG, recipe, PREPROCESS)
    arrays = first_arrays(ours(theirs, "before"), recipe)
    for number in range(STEPS):
        lr = learning_rate(recipe, number, STEPS)
        pixels, labels = theirs["pixels"][number], theirs["labels"][number]
        arrays, report = step(arrays, {}, pixels, labels, number, lr)
        loss, norm = report.tolist()[:2]
        assert loss == pytest.approx(theirs[f"{name}/loss"][number], rel=1e-4)
        assert norm == pytest.approx(theirs[f"{name}/norm"][number], rel=1e-4)
    assert_close(arrays["weights"], ours(theirs, f"{name}/after"))


def test_gradients(theirs: dict[str, np.ndarray]) -> None:
    recipe = RECIPES["sgd"].replace(clip_norm=None)  # whose first velocity is the gradient
    step = make_step(CONFIG, recipe, PREPROCESS)
    arrays = first_arrays(ours(theirs, "before"), recipe)
    arrays, _ = step(arrays, {}, theirs["pixels"][0], theirs["labels"][0], 0, 0.1)
    assert_close(arrays["v"], ours(theirs, "gradient"))
    noise = [mx.abs(g).max().item() for name, g in arrays["v"].items() if is_noise(name)]
    assert len(noise) == 2
    assert max(noise) < 1e-6
