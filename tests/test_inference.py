"""The form that MLX can export and compile for any batch size gives the model's numbers."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from mixer_mlx import MixerConfig, MlpMixer
from mixer_mlx.inference import inference_form, lean_form

SIZES = {"image_size": (8, 12), "num_blocks": 2, "hidden_dim": 16, "num_classes": 5}


def model(model_type: str, act: str) -> MlpMixer:
    """With weights of which none is zero."""
    names = {"mlp_mixer": "S/32", "resmlp": "ResMLP-S12", "gmlp": "gMLP-Ti/16"}
    name = names.get(model_type, "gMixer-12")
    config = MixerConfig.variant(name, **{**SIZES, "patch_size": 4}, hidden_act=act)
    made, rng = MlpMixer(config), np.random.default_rng(0)
    flat = [
        (name, mx.array(rng.normal("norm" in name, 0.2, w.shape).astype(np.float32)))
        for name, w in tree_flatten(made.parameters())
    ]
    made.update(tree_unflatten(flat))
    return made


@pytest.mark.parametrize(
    ("model_type", "act"),
    [("mlp_mixer", "gelu"), ("mlp_mixer", "gelu_tanh"), ("resmlp", "gelu"), ("gmlp", "gelu"),
     ("gmixer", "silu")],
)  # fmt: skip
def test_exported_and_compiled(model_type: str, act: str, tmp_path: Path) -> None:
    network = model(model_type, act)
    form, path = inference_form(network), str(tmp_path / "model.mlxfn")
    images = mx.random.normal((3, 8, 12, 3), key=mx.random.key(0))
    any_size = model_type in ("mlp_mixer", "resmlp")
    mx.export_function(path, form, images[: 1 if any_size else 3], shapeless=any_size)
    exported = mx.import_function(path)
    compiled = mx.compile(form, shapeless=any_size)
    for size in (1, 2, 3) if any_size else (3,):
        expected = np.array(network(images[:size]))
        assert np.abs(expected).max() > 0.1
        for found in (form(images[:size]), compiled(images[:size]), exported(images[:size])[0]):
            np.testing.assert_allclose(np.array(found), expected, atol=1e-5)


def test_the_model_itself_keeps_its_derivatives() -> None:
    network = model("mlp_mixer", "gelu")
    images = mx.random.normal((2, 8, 12, 3), key=mx.random.key(0))
    form = inference_form(network)

    def total(x: mx.array) -> mx.array:
        return network(x).sum()

    before = mx.grad(total)(images)
    plain = mx.grad(lambda x: form(x).sum())(images)
    assert mx.array_equal(mx.grad(total)(images), before)
    np.testing.assert_allclose(np.array(plain), np.array(before), atol=1e-4)


@pytest.mark.parametrize("model_type", ["mlp_mixer", "gmixer"])
def test_lean_form(model_type: str) -> None:
    """Also if the biases that it leaves out are large."""
    network = model(model_type, "silu" if model_type == "gmixer" else "gelu")
    for block in network.blocks:
        block.token_mixing.fc2.bias = 3 * mx.random.normal((6,), key=mx.random.key(1))
    x = mx.random.normal((3, 8, 12, 3), key=mx.random.key(0))
    expected = network(x)
    assert mx.abs(lean_form(network, x) - expected).max() < 1e-5 * mx.abs(expected).max()
