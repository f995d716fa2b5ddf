"""LoRA: few weights to train beside frozen ones (Hu et al., arXiv 2106.09685).

Each linear map of the blocks, over channels and over tokens, gets two thin matrices, so that its
weight is `weight + scale * lora_b @ lora_a`. The start and the meaning of `scale` are mlx-lm's: A
is uniform in +-1/sqrt(in), B is zero. Thin matrices are (out, in), as all of ours.
"""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mixer_mlx.ops.linear import over_channels, over_tokens, plus_channels, plus_tokens

from .layers import ChannelLinear, TokenLinear
from .model import MlpMixer

SCALE = 20.0
"""mlx-lm's."""
_THIN = ("lora_a", "lora_b")


class _Lora(nn.Module):
    """The weights of a linear map, with `lora_a` (rank, in) and `lora_b` (out, rank)."""

    def __init__(self, layer: nn.Module, rank: int, scale: float, key: mx.array):
        nn.Module.__init__(self)
        self.weight, self.bias = layer.weight, layer.bias
        out_dim, in_dim = self.weight.shape
        bound = in_dim**-0.5
        self.lora_a = mx.random.uniform(-bound, bound, (rank, in_dim), key=key)
        self.lora_b = mx.zeros((out_dim, rank))
        self._scale = scale


class LoraChannelLinear(_Lora, ChannelLinear):
    """A ChannelLinear with adapters."""

    def __call__(self, x: mx.array) -> mx.array:
        inner = over_channels(x, self.lora_a, mx.zeros(len(self.lora_a), x.dtype))
        return plus_channels(super().__call__(x), self._scale * inner, self.lora_b)


class LoraTokenLinear(_Lora, TokenLinear):
    """A TokenLinear with adapters."""

    def __call__(self, x: mx.array) -> mx.array:
        inner = over_tokens(x, self.lora_a, mx.zeros(len(self.lora_a), x.dtype))
        return plus_tokens(super().__call__(x), self._scale * inner, self.lora_b)


_ADAPTED: dict[type[nn.Module], type[_Lora]] = {
    ChannelLinear: LoraChannelLinear,
    TokenLinear: LoraTokenLinear,
}


def add_adapters(model: MlpMixer, rank: int, scale: float = SCALE, *, seed: int = 0) -> None:
    """Give the linear maps of a model's blocks adapters, in place; its outputs stay the same.

    Evaluates nothing. Raises ConfigError for a quantised model.
    """
    model.require_unquantized("get adapters")
    modules = dict(model.named_modules())
    names = sorted(name for name, layer in modules.items() if type(layer) in _ADAPTED)
    layers = [(name, modules[name]) for name in names if name != "head"]
    keys = mx.random.split(mx.random.key(seed), len(layers))
    made = [
        (name, _ADAPTED[type(layer)](layer, rank, scale, key))
        for (name, layer), key in zip(layers, keys, strict=True)
    ]
    model.update_modules(tree_unflatten(made))


def has_adapters(model: MlpMixer) -> bool:
    """Whether a model's blocks have adapters."""
    return any("lora_a" in module for module in model.modules())


def is_thin(name: str) -> bool:
    """Whether a parameter is an adapter's, by its name."""
    return name.rpartition(".")[2] in _THIN


def fused(model: MlpMixer) -> MlpMixer:
    """An ordinary model that computes the same within rounding; it shares all other weights."""
    made = MlpMixer(model.config)
    weights: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    for name, layer in model.named_modules():
        if "lora_a" in layer:
            thin = layer.lora_b @ layer.lora_a
            weights[f"{name}.weight"] = layer.weight + layer._scale * thin
    made.update(tree_unflatten([(name, w) for name, w in weights.items() if not is_thin(name)]))
    mx.eval(made.parameters())
    return made
