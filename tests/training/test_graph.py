"""What a block adds to the compiled networks: operations, and memory. A stray copy fails these."""

import io
import re
from collections import Counter
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from memory import peak
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from mixer_mlx.config import MixerConfig
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model import MlpMixer
from mixer_mlx.training.network import weights_of
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.step import first_arrays, make_step

N, S, C, D_S, D_C = 16, 64, 128, 64, 512
# Views, and what only names an array: none of them touches memory.
FREE = {
    *("Broadcast", "CustomTransforms", "ExpandDims", "Flatten", "Full", "Reshape", "Squeeze"),
    *("StopGradient", "Transpose", "Unflatten"),
}


def config(blocks: int) -> MixerConfig:
    return MixerConfig(
        image_size=(32, 32),
        patch_size=4,
        num_blocks=blocks,
        hidden_dim=C,
        tokens_mlp_dim=D_S,
        channels_mlp_dim=D_C,
        num_classes=10,
    )


def operations(*outputs: mx.array) -> Counter[str]:
    dot = io.StringIO()
    mx.export_to_dot(dot, *outputs)
    names = re.findall(r'label ="(\w+)", shape=rectangle', dot.getvalue())
    return Counter("Compiled" if name.startswith("Compiled") else name for name in names)


def of_a_block(count: Callable[[int], Counter[str]]) -> dict[str, int]:
    added = count(4)
    added.subtract(count(3))
    return {name: n for name, n in added.items() if n and name not in FREE}


@pytest.fixture
def layer_norm_as_one_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel on a GPU, and many operations on the CPU; here one with a derivative of one."""
    monkeypatch.setattr(mx.fast, "layer_norm", lambda x, *_: mx.erf(x))
    monkeypatch.setattr("mixer_mlx.ops.norm.NORM_BY_PRODUCTS_FROM", 2**62)


@pytest.mark.usefixtures("layer_norm_as_one_operation")
def test_forward() -> None:
    def count(blocks: int) -> Counter[str]:
        model = MlpMixer(config(blocks))
        x = mx.zeros((N, 32, 32, 3))
        mx.eval(model.parameters(), x)
        return operations(mx.compile(model, inputs=model.state)(x))

    # 4 linear maps with their biases; 2 GELUs; 2 layer norms and 2 additions, fused here, as no
    # real layer norm is.
    found = of_a_block(count)
    assert found.pop("AddMM") == 4
    assert sum(found.values()) <= 6, found
    assert set(found) <= {"Compiled", "Erf", "Add"}


@pytest.mark.usefixtures("layer_norm_as_one_operation")
def test_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Counter[str]] = []
    real = mx.compile

    def watched(function: Callable[..., object], *args: object) -> Callable[..., object]:
        compiled = real(function, *args)

        def run(*arguments: object) -> object:
            result = compiled(*arguments)
            seen.append(operations(*(leaf for _, leaf in tree_flatten(result))))
            return result

        return run

    def count(blocks: int) -> Counter[str]:
        recipe = Recipe(steps=1, weight_decay=0.1)
        arrays = first_arrays(weights_of(MlpMixer(config(blocks))), recipe)
        mx.eval(arrays)
        monkeypatch.setattr(mx, "compile", watched)
        step = make_step(config(blocks), recipe, Preprocess((32, 32)))
        seen.clear()
        step(arrays, {}, *batch(), 0, 1e-3)
        return seen[0]

    found = of_a_block(count)
    assert found.pop("AddMM") == 4  # forward
    # Backward: to the input and the weight of each map; sums of the channel maps' biases, and over
    # the batch of the token maps' weights.
    assert found.pop("Matmul") == 12
    assert found.pop("Sum") == 2  # the token maps' biases
    # GELUs, additions and layer norms, forward and backward.
    assert sum(found.values()) <= 12, found
    assert set(found) <= {"Compiled", "Erf", "Add", "Multiply"}


def batch() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    return np.zeros((N, 32, 32, 3), np.uint8), np.zeros(N, np.int32)


def test_memory_of_the_forward_pass_does_not_grow_with_depth() -> None:
    def measured(blocks: int) -> int:
        model = MlpMixer(config(blocks))
        x = mx.zeros((N, 32, 32, 3))
        mx.eval(model.parameters(), x)
        forward = mx.compile(model, inputs=model.state)
        mx.eval(forward(x))  # compiled
        return peak(lambda: mx.eval(forward(x)))

    # Six more blocks don't keep even three arrays; one may wait for its thread before it is freed.
    assert measured(9) - measured(3) < 3 * 4 * N * S * C


def test_memory_of_a_training_step() -> None:
    def measured(blocks: int) -> int:
        recipe = Recipe(steps=1)
        state = [first_arrays(weights_of(MlpMixer(config(blocks))), recipe)]
        mx.eval(state)
        step = make_step(config(blocks), recipe, Preprocess((32, 32)))

        def one() -> None:
            state[0], report = step(state[0], {}, *batch(), 0, 1e-3)
            mx.eval(state[0], report)

        one()  # compiled
        return peak(one)

    # Kept for the gradient: the inputs of both layer norms and what they give, and of each MLP
    # what goes into its GELU and what comes out.
    kept = 4 * N * (4 * S * C + 2 * D_S * C + 2 * S * D_C)
    # Gradients, and the new ones of weights and two moments.
    weights = 4 * 4 * (config(6).num_parameters - config(3).num_parameters) / 3
    assert (measured(6) - measured(3)) / 3 < kept + weights
