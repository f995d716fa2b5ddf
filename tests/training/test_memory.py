import mlx.core as mx
import numpy as np
import pytest
from memory import peak
from mlx.utils import tree_flatten

from mixer_mlx.config import MixerConfig
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model import MlpMixer
from mixer_mlx.training.network import weights_of
from mixer_mlx.training.prepare import estimated_bytes, fitted
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.step import first_arrays, make_step

CONFIG = MixerConfig(
    image_size=(64, 64),
    patch_size=8,
    num_blocks=6,
    hidden_dim=64,
    tokens_mlp_dim=64,
    channels_mlp_dim=256,
    num_classes=10,
)


def peak_of(config: MixerConfig, recipe: Recipe) -> int:
    """What MLX allocates in a training step, the state included."""
    step = make_step(config, recipe, Preprocess((64, 64)))
    arrays = first_arrays(weights_of(MlpMixer(config)), recipe)
    mx.eval(arrays)
    pixels, labels = np.zeros((16, 64, 64, 3), np.uint8), np.zeros(16, np.int32)

    def one(number: int) -> None:
        mx.eval(step(arrays, {}, pixels, labels, number, 1e-3))

    one(0)  # compiled
    return peak(lambda: one(1)) + sum(array.nbytes for _, array in tree_flatten(arrays))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accumulation": 4, "optimizer": "sgd"},
        {"gradient_checkpointing": True, "ema_decay": 0.9},
    ],
    ids=["plain", "accumulation", "checkpointing"],
)
@pytest.mark.parametrize("processors", ["1", "2"])
def test_estimate_is_no_less_than_what_is_measured_and_not_far_above(
    changes: dict[str, object], processors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", processors)
    recipe = Recipe(steps=2, batch_size=16).replace(**changes)
    measured = peak_of(CONFIG, recipe)
    assert measured <= estimated_bytes(CONFIG, recipe) < 2 * measured


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("resmlp", {"tokens_mlp_dim": 0}),
        ("gmlp", {"tokens_mlp_dim": 0, "channels_mlp_dim": 384}),
        ("gmixer", {"hidden_act": "silu"}),
    ],
)
def test_estimate_of_siblings(family: str, sizes: dict[str, object]) -> None:
    config, recipe = CONFIG.replace(model_type=family, **sizes), Recipe(steps=2, batch_size=16)
    measured = peak_of(config, recipe)
    assert measured <= estimated_bytes(config, recipe) < 2 * measured


def test_a_batch_is_cut_until_it_fits() -> None:
    recipe = Recipe(steps=1, batch_size=48)
    need = estimated_bytes(CONFIG, recipe)
    assert fitted(CONFIG, recipe, need / 0.59) == recipe
    halves = fitted(CONFIG, recipe, need / 0.61)
    assert halves == recipe.replace(accumulation=2)
    assert estimated_bytes(CONFIG, halves) < need
    assert fitted(CONFIG, recipe, 1.0).accumulation == 48
    chosen = recipe.replace(accumulation=3)
    assert fitted(CONFIG, chosen, 1.0) == chosen
