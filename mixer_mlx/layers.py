"""The linear maps and the MLP that blocks are made of, over channels or over tokens."""

import math

import mlx.core as mx
import mlx.nn as nn

from mixer_mlx.ops.activations import ACTIVATIONS
from mixer_mlx.ops.linear import over_channels, over_tokens
from mixer_mlx.ops.norm import layer_norm


class ChannelLinear(nn.Linear):
    """A linear map over the last axis: (..., in) -> (..., out). `weight` is (out, in)."""

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__(in_dim, out_dim)
        self.weight = lecun_normal((out_dim, in_dim))
        self.bias = mx.zeros(out_dim)

    def __call__(self, x: mx.array) -> mx.array:
        return over_channels(x, self.weight, self.bias)


class TokenLinear(nn.Module):
    """A linear map over the second last axis: (N, in, C) -> (N, out, C). `weight` is (out, in).

    The weight multiplies from the left, which avoids a transposed copy of x. Not a subclass of
    nn.Linear, because `nn.quantize` would replace it by a layer over the last axis.
    """

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.weight = lecun_normal((out_dim, in_dim))
        self.bias = mx.zeros(out_dim)

    def _extra_repr(self) -> str:
        out_dim, in_dim = self.weight.shape
        return f"input_dims={in_dim}, output_dims={out_dim}, bias=True"

    def __call__(self, x: mx.array) -> mx.array:
        return over_tokens(x, self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """Over the last axis: (..., C) -> (..., C)."""

    def __call__(self, x: mx.array) -> mx.array:
        return layer_norm(x, self.weight, self.bias, self.eps)


class MlpBlock(nn.Module):
    """Two linear maps with a GELU between them, over the axis of `linear`."""

    def __init__(
        self, linear: "type[ChannelLinear | TokenLinear]", dim: int, mlp_dim: int, hidden_act: str
    ):
        super().__init__()
        self.fc1 = linear(dim, mlp_dim)
        self.fc2 = linear(mlp_dim, dim)
        self._act, self._act_name = ACTIVATIONS[hidden_act], hidden_act

    def _extra_repr(self) -> str:
        return self._act_name

    def __call__(self, x: mx.array) -> mx.array:
        return self.fc2(self.hidden(x))

    def hidden(self, x: mx.array) -> mx.array:
        """What the second linear map gets."""
        return self._act(self.fc1(x))


def lecun_normal(shape: tuple[int, ...]) -> mx.array:
    """Normal, truncated at two standard deviations, with variance 1 / fan_in: Flax's default.

    `shape` is (out, ...); fan_in is the product of the rest. 0.8796 is the standard deviation of
    a standard normal distribution truncated at -2 and 2.
    """
    std = math.prod(shape[1:]) ** -0.5
    return mx.random.truncated_normal(-2.0, 2.0, shape) * (std / 0.87962566103423978)
