"""Adapters: their gradient against PyTorch's, what they leave as it is, and what they save."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from memory import peak
from mlx.utils import tree_flatten
from training.synthetic import CONFIG, PREPROCESS, Synthetic, tiny_model, weights
from training.test_golden import RECIPES, ours, theirs
from training.test_resume import assert_same, run, strides

from mixer_mlx import MlpMixer
from mixer_mlx.config import MixerConfig
from mixer_mlx.errors import ConfigError
from mixer_mlx.lora import add_adapters, fused, has_adapters
from mixer_mlx.training.loop import Done, fit
from mixer_mlx.training.network import put
from mixer_mlx.training.optimizer import Weights
from mixer_mlx.training.prepare import estimated_bytes, plan
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.state import State
from mixer_mlx.training.step import make_step

__all__ = ["theirs"]  # a fixture

LORA = Recipe(epochs=3, lr=0.01, lora_rank=2, lora_scale=4.0, weight_decay=0.1)
VARIED = {
    "plain": LORA.replace(ema_decay=0.8),
    "parts": LORA.replace(gradient_checkpointing=True, accumulation=2, layer_decay=0.7),
    "float16": LORA.replace(dtype="float16", optimizer="sgd", drop_path=0.3),
}
FAMILIES = {
    "mlp_mixer": CONFIG,
    "resmlp": CONFIG.replace(model_type="resmlp", tokens_mlp_dim=0),
    "gmlp": CONFIG.replace(model_type="gmlp", tokens_mlp_dim=0),
    "gmixer": CONFIG.replace(model_type="gmixer", hidden_act="silu"),
}


def with_adapters(config: MixerConfig = CONFIG) -> MlpMixer:
    """A model whose adapters aren't zero."""
    model, rng = tiny_model(config=config), np.random.default_rng(1)
    add_adapters(model, 2, 4.0)
    thin = {k: w.shape for k, w in weights(model).items() if "lora_b" in k}
    put(model, {k: mx.array(rng.normal(0, 0.1, s).astype(np.float32)) for k, s in thin.items()})
    return model


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_follow_from_pytorchs(
    theirs: dict[str, np.ndarray], *, checkpointing: bool
) -> None:
    """With W = W0 + s B A: dL/dB = s G A^T and dL/dA = s B^T G, for PyTorch's gradient G of W."""
    whole, gradients = ours(theirs, "before"), ours(theirs, "gradient")
    model, scale = with_adapters(), 4.0
    thin = {name: w for name, w in weights(model).items() if "lora" in name}
    layers = [name.removesuffix(".lora_a") for name in thin if name.endswith("lora_a")]
    assert len(layers) == 4 * CONFIG.num_blocks
    start, expected = dict(whole), {}
    for name in layers:
        a, b = thin[f"{name}.lora_a"], thin[f"{name}.lora_b"]
        start[f"{name}.weight"] = whole[f"{name}.weight"] - scale * b @ a
        gradient = np.array(gradients[f"{name}.weight"])
        expected[f"{name}.lora_a"] = scale * b.T @ gradient
        expected[f"{name}.lora_b"] = scale * gradient @ a.T
    expected |= {name: np.array(g) for name, g in gradients.items() if "head" in name}
    put(model, start)
    recipe = RECIPES["sgd"].replace(  # whose first velocity is the gradient
        clip_norm=None, lora_rank=2, lora_scale=scale, gradient_checkpointing=checkpointing
    )
    state = State.start(model, recipe)
    step = make_step(CONFIG, recipe, PREPROCESS)
    pixels, labels = theirs["pixels"][0], theirs["labels"][0]
    arrays, report = step(state.arrays, state.frozen, pixels, labels, 0, 0.1)
    assert report[0].item() == pytest.approx(theirs["sgd/loss"][0], rel=1e-4)
    assert set(arrays["v"]) == set(expected)
    for name, value in expected.items():
        assert abs(np.array(arrays["v"][name]) - value).max() < 1e-4 * abs(value).max(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_change_nothing_at_first_and_can_be_fused(family: str) -> None:
    x = mx.random.normal((3, 8, 12, 3), key=mx.random.key(0))
    model = tiny_model(config=FAMILIES[family])
    before = model(x)
    add_adapters(model, 2, seed=3)
    assert mx.array_equal(model(x), before)
    for name, w in weights(model).items():
        if name.endswith("lora_a"):
            assert 0.5 < abs(w).max() * w.shape[1] ** 0.5 <= 1, name
    model = with_adapters(FAMILIES[family])
    plain = fused(model)
    assert not has_adapters(plain)
    assert mx.allclose(plain(x), model(x), rtol=1e-5, atol=1e-5)
    assert not mx.allclose(plain(x), before, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", VARIED)
def test_a_run_leaves_the_base_and_resumes_with_the_same_bits(name: str, tmp_path: Path) -> None:
    recipe, base = VARIED[name], weights(tiny_model())
    events = []
    for number, event in enumerate(run(recipe)):
        if number == 7:
            event.state.save(tmp_path / "state")
        events.append(event)
    expected = events[-1].state
    assert expected.frozen.keys() == {k for k in base if "head" not in k}
    for key, w in expected.frozen.items():
        assert np.array_equal(w, base[key]), key
    moved = expected.by_name()["weights"]
    assert all(w.any() for key, w in moved.items() if "lora_b" in key)
    model = tiny_model()
    state = State.load(tmp_path / "state", model)
    assert state.progress.step > 5
    layout = strides(state)
    *_, last = run(recipe, state=state, model=model)
    assert isinstance(last, Done)
    assert_same(last.state, expected)
    assert strides(last.state) == layout
    size = (tmp_path / "state" / "arrays.safetensors").stat().st_size
    assert size < 4 * 5 * sum(w.size for w in moved.values()) + 20_000


def test_packed_arrays_give_the_same() -> None:
    recipe = LORA.replace(ema_decay=0.8)
    found: list[Weights] = []
    for packed in (False, True):
        state = State.start(with_adapters(), recipe)
        step = make_step(CONFIG, recipe, PREPROCESS, packed=packed)
        for number, (pixels, labels) in enumerate(Synthetic().epoch(0)):
            state.arrays, _ = step(state.arrays, state.frozen, pixels, labels, number, 0.01)
        found.append(state.by_name()["weights"])
    for name, value in found[0].items():
        assert mx.allclose(value, found[1][name], rtol=1e-4, atol=1e-5), name


# Wide for its images, as L/16 is.
WIDE = MixerConfig(
    image_size=(16, 16),
    patch_size=8,
    num_blocks=4,
    hidden_dim=256,
    tokens_mlp_dim=64,
    channels_mlp_dim=1024,
    num_classes=10,
)


def peak_of(recipe: Recipe) -> int:
    """What MLX allocates for a training step, the weights included."""
    state = State.start(MlpMixer(WIDE), recipe)
    mx.eval(state.arrays, state.frozen)
    step = make_step(WIDE, recipe, PREPROCESS)
    pixels, labels = np.zeros((4, 16, 16, 3), np.uint8), np.zeros(4, np.int32)

    def one() -> None:
        mx.eval(step(state.arrays, state.frozen, pixels, labels, 0, 1e-3))

    one()  # compiled
    held = [*tree_flatten(state.arrays), *tree_flatten(state.frozen)]
    # With an EMA, both start as the same array.
    return peak(one) + sum({id(w): w.nbytes for _, w in held}.values())


def test_memory() -> None:
    whole = Recipe(steps=2, batch_size=4, ema_decay=0.9)
    lora = whole.replace(lora_rank=8)
    held = 4 * WIDE.num_parameters
    assert peak_of(whole) > 5 * held
    found = peak_of(lora)
    assert held < found < 2 * held
    assert found <= estimated_bytes(WIDE, lora) < 2 * found


def test_a_plan_leaves_the_model_as_it_is() -> None:
    model = tiny_model()
    assert plan(model, PREPROCESS, LORA, 10).peak_memory > 0
    assert not has_adapters(model)


@pytest.mark.parametrize(
    "changes", [{"freeze": "backbone"}, {"optimizer": "muon"}, {"lora_rank": 0}]
)
def test_what_does_not_go_together(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="lora_rank"):
        LORA.replace(**changes)


def test_another_rank_than_the_models() -> None:
    model = tiny_model()
    add_adapters(model, 3)
    with pytest.raises(ConfigError, match="layers aren't those"):
        next(fit(model, Synthetic(), None, LORA, preprocess=PREPROCESS))
