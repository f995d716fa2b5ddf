from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from training.synthetic import CONFIG, tiny_model

from mixer_mlx import MixerConfig, MlpMixer
from mixer_mlx.training import network
from mixer_mlx.training.network import draw, forward, part, put, trained_names, weights_of
from mixer_mlx.training.optimizer import Weights
from mixer_mlx.training.recipe import Recipe

X = mx.array(np.random.default_rng(0).normal(size=(3, 8, 12, 3)).astype(np.float32))
DEEP = CONFIG.replace(num_blocks=5)


def recipe(**changes: object) -> Recipe:
    return Recipe(steps=1, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("checkpoint", [False, True])
def test_without_noise_it_is_the_model(checkpoint: bool) -> None:
    model = tiny_model()
    assert draw(mx.random.key(0), 3, CONFIG, recipe()) == {}
    assert mx.array_equal(forward(model, X, {}, checkpoint=checkpoint), model(X))


def test_what_is_kept_whole_changes_nothing() -> None:
    model, noise = tiny_model(), {"depth": mx.ones((2, 2, 3, 1, 1)), "pre_logits": mx.ones((3, 12))}
    assert mx.array_equal(forward(model, X, noise, checkpoint=False), model(X))


def test_what_is_dropped_is_the_sub_layer_of_that_example() -> None:
    model = tiny_model()
    depth = np.ones((2, 2, 3, 1, 1), np.float32)
    depth[0, 0, 1] = depth[1, 1, 2] = 0
    found = forward(model, X, {"depth": mx.array(depth)}, checkpoint=False)
    x, (one, two) = model.embed(X), model.blocks
    no_token = one.channel_mixing(one.norm2(x)) + x
    half = two.token_mixing(two.norm1(one(x))) + one(x)
    expected = [two(one(x))[0], two(no_token)[1], half[2]]
    logits = model.classify(model.pool(mx.stack(expected)))
    assert np.array(found) == pytest.approx(np.array(logits), abs=1e-6)


@pytest.mark.parametrize("rescale", [False, True])
def test_probabilities_are_linear_in_depth(rescale: bool) -> None:
    setting = recipe(drop_path=0.4, drop_path_rescale=rescale)
    depth = np.array(draw(mx.random.key(1), 4000, DEEP, setting)["depth"])
    assert depth.shape == (5, 2, 4000, 1, 1)
    kept = 1 - np.array([0, 0.1, 0.2, 0.3, 0.4])
    share = (depth > 0).mean(axis=(2, 3, 4))
    assert abs(share - kept[:, None]).max() < 0.03  # four standard deviations
    assert share[0].tolist() == [1, 1]
    values = 1 / kept if rescale else np.ones(5)
    assert depth.max(axis=(1, 2, 3, 4)) == pytest.approx(values)
    if rescale:
        assert depth.mean() == pytest.approx(1, abs=0.02)
    # The two sub-layers of a block draw for themselves, and so do the blocks.
    flags = (depth > 0).reshape(10, 4000)[2:]
    assert abs(np.corrcoef(flags) - np.eye(8)).max() < 0.07


def test_one_block_never_drops() -> None:
    one = CONFIG.replace(num_blocks=1)
    assert draw(mx.random.key(0), 50, one, recipe(drop_path=0.9))["depth"].min().item() == 1


def test_dropout_of_the_pre_logits() -> None:
    noise = draw(mx.random.key(2), 2000, CONFIG, recipe(dropout=0.25))
    values = np.array(noise["pre_logits"])
    assert values.shape == (2000, 12)
    assert set(values.ravel()) == {0.0, np.float32(1 / 0.75)}
    assert (values > 0).mean() == pytest.approx(0.75, abs=0.012)
    model = tiny_model()
    noise = {"pre_logits": mx.array(values[:3])}
    expected = model.classify(model.pre_logits(X) * noise["pre_logits"])
    assert mx.array_equal(forward(model, X, noise, checkpoint=False), expected)


def test_noise_depends_on_the_key_alone_and_parts_are_parts() -> None:
    setting = recipe(drop_path=0.5, dropout=0.5)
    one, two, other = (draw(mx.random.key(k), 6, DEEP, setting) for k in (3, 3, 4))
    for name, value in one.items():
        assert mx.array_equal(value, two[name])
        assert not mx.array_equal(value, other[name])
    halves = [part(one, 0, 3), part(one, 3, 6)]
    assert mx.array_equal(mx.concatenate([h["depth"] for h in halves], axis=2), one["depth"])
    assert mx.array_equal(mx.concatenate([h["pre_logits"] for h in halves]), one["pre_logits"])


def test_recomputed_blocks_have_the_same_gradients() -> None:
    model, skeleton = tiny_model(config=DEEP), MlpMixer(DEEP)
    noise = draw(mx.random.key(5), 3, DEEP, recipe(drop_path=0.6, dropout=0.3))
    assert noise["depth"].min().item() == 0

    def loss(weights: dict[str, mx.array], *, checkpoint: bool) -> mx.array:
        put(skeleton, weights)
        return (forward(skeleton, X, noise, checkpoint=checkpoint) ** 2).sum()

    weights = weights_of(model)
    plain, again = (mx.grad(partial(loss, checkpoint=c))(weights) for c in (False, True))
    for name, gradient in plain.items():
        assert mx.abs(gradient).max().item() > 0 or name.startswith("blocks.4"), name
        assert mx.array_equal(gradient, again[name]), name


def test_trained_names() -> None:
    names = list(weights_of(MlpMixer(DEEP)))
    assert trained_names(DEEP, recipe(), names) == set(names)
    head = {"head.weight", "head.bias"}
    assert trained_names(DEEP, recipe(freeze="backbone"), names) == head
    found = trained_names(DEEP, recipe(freeze="backbone", unfreeze_last=2), names)
    late = {name for name in names if name.startswith(("blocks.3.", "blocks.4."))}
    assert len(late) == 24
    assert found == head | {"norm.weight", "norm.bias"} | late
    all_blocks = trained_names(DEEP, recipe(freeze="backbone", unfreeze_last=9), names)
    assert set(names) - all_blocks == {"stem.weight", "stem.bias"}
    headless: MixerConfig = DEEP.replace(num_classes=0)
    assert not trained_names(headless, recipe(freeze="backbone"), ["norm.weight"])


def test_a_gpus_form_has_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()

    def loss(weights: Weights) -> mx.array:
        put(model, weights)
        return forward(model, X, {}, checkpoint=False).square().sum()

    weights = weights_of(model)
    expected = mx.grad(loss)(weights)
    monkeypatch.setattr(network, "gpu_is_default", lambda: True)
    found = mx.grad(loss)(weights)
    for name, gradient in expected.items():
        if name.endswith("token_mixing.fc2.bias"):
            assert not found[name].any().item()
            assert mx.abs(gradient).max() < 1e-4
        else:
            off = mx.abs(found[name] - gradient).max() / mx.abs(gradient).max()
            assert off.item() < 1e-4, name
