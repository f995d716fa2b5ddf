"""The blocks of ResMLP, gMLP and gMixer, which have the frame of `model.MlpMixer`.

Shape letters as in model.py. A block maps (N, S, C) to (N, S, C), and takes `keep` as MixerBlock
does. The arithmetic is that of pytorch-image-models (timm), `timm/models/mlp_mixer.py`, whose
weights are the published ones.
"""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from mixer_mlx.ops.activations import ACTIVATIONS
from mixer_mlx.ops.linear import affine

from .config import MixerConfig
from .layers import ChannelLinear, LayerNorm, MlpBlock, TokenLinear

GATE_NORM_EPS = 1e-5
"""Of the layer norm inside gMLP's gate; timm gives it PyTorch's default."""


class Affine(nn.Module):
    """weight * x + bias for each channel, without statistics (ResMLP, equation 1)."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = mx.ones(dim)
        self.bias = mx.zeros(dim)

    def _extra_repr(self) -> str:
        return str(self.weight.size)

    def __call__(self, x: mx.array) -> mx.array:
        return affine(x, self.weight, self.bias)


class ResMlpBlock(nn.Module):
    """ResMLP (Touvron et al., arXiv 2105.03404), equations 2 and 3.

    One linear map over the tokens, then an MLP over the channels. Each branch has a scale for each
    channel (LayerScale), `scale1` and `scale2`, which are small at the beginning.
    """

    def __init__(self, config: MixerConfig):
        super().__init__()
        S, C = config.num_tokens, config.hidden_dim
        self.norm1 = Affine(C)
        self.token_mixing = TokenLinear(S, S)
        self.scale1 = mx.full(C, _first_scale(config))
        self.norm2 = Affine(C)
        self.channel_mixing = MlpBlock(ChannelLinear, C, config.channels_mlp_dim, config.hidden_act)
        self.scale2 = mx.full(C, _first_scale(config))

    def __call__(self, x: mx.array, keep: mx.array | None = None) -> mx.array:
        y = self.token_mixing(self.norm1(x))
        x = affine(y if keep is None else keep[0] * y, self.scale1, x)
        y = self.channel_mixing(self.norm2(x))
        return affine(y if keep is None else keep[1] * y, self.scale2, x)


def _first_scale(config: MixerConfig) -> float:
    """timm's values for the paper's sizes: smaller, the deeper and wider the model is."""
    if config.num_blocks > 24 or config.hidden_dim > 384:
        return 1e-6
    return 1e-5 if config.num_blocks > 12 else 1e-4


class SpatialGate(nn.Module):
    """The spatial gating unit (gMLP, section 2.1): (N, S, D) -> (N, S, D / 2).

    The first half of the channels, times the second half after a layer norm and a linear map over
    the tokens. At the beginning that factor is close to 1.
    """

    def __init__(self, num_tokens: int, dim: int):
        super().__init__()
        self.norm = LayerNorm(dim // 2, eps=GATE_NORM_EPS)
        self.proj = TokenLinear(num_tokens, num_tokens)
        self.proj.weight = 1e-6 * mx.random.normal((num_tokens, num_tokens))
        self.proj.bias = mx.ones(num_tokens)

    def __call__(self, x: mx.array) -> mx.array:
        u, v = mx.split(x, 2, axis=-1)
        return u * self.proj(self.norm(v))


class GMlpBlock(nn.Module):
    """gMLP (Liu et al., "Pay Attention to MLPs", arXiv 2105.08050), section 2.

    One branch: an MLP over the channels, whose hidden layer is gated by the other tokens.
    """

    def __init__(self, config: MixerConfig):
        super().__init__()
        C, D = config.hidden_dim, config.channels_mlp_dim
        self.norm = LayerNorm(C, eps=config.layer_norm_eps)
        self.fc1 = ChannelLinear(C, D)
        self.gate = SpatialGate(config.num_tokens, D)
        self.fc2 = ChannelLinear(D // 2, C)
        self._act = ACTIVATIONS[config.hidden_act]

    def __call__(self, x: mx.array, keep: mx.array | None = None) -> mx.array:
        y = self.fc2(self.gate(self._act(self.fc1(self.norm(x)))))
        return x + (y if keep is None else keep[0] * y)


class GluBlock(MlpBlock):
    """An MLP whose hidden layer is a gated linear unit, over the axis of `linear`.

    fc2(a * act(b)), with a and b the halves of fc1(x) along that axis; with SiLU as `act` that is
    SwiGLU (Shazeer, arXiv 2002.05202, equation 6; the halves are the other way round there).
    """

    def __init__(
        self, linear: type[ChannelLinear | TokenLinear], dim: int, mlp_dim: int, hidden_act: str
    ):
        super().__init__(linear, dim, mlp_dim, hidden_act)
        self.fc2 = linear(mlp_dim // 2, dim)
        self._axis = 1 if linear is TokenLinear else 2

    def __call__(self, x: mx.array) -> mx.array:
        a, b = mx.split(self.fc1(x), 2, axis=self._axis)
        return self.fc2(a * self._act(b))


class GMixerBlock(nn.Module):
    """gMixer: the Mixer's block with gated MLPs; an experiment of timm's author, without paper."""

    def __init__(self, config: MixerConfig):
        super().__init__()
        S, C = config.num_tokens, config.hidden_dim
        act, eps = config.hidden_act, config.layer_norm_eps
        self.norm1 = LayerNorm(C, eps=eps)
        self.token_mixing = GluBlock(TokenLinear, S, config.tokens_mlp_dim, act)
        self.norm2 = LayerNorm(C, eps=eps)
        self.channel_mixing = GluBlock(ChannelLinear, C, config.channels_mlp_dim, act)

    def __call__(self, x: mx.array, keep: mx.array | None = None) -> mx.array:
        y = self.token_mixing(self.norm1(x))
        x = x + (y if keep is None else keep[0] * y)
        y = self.channel_mixing(self.norm2(x))
        return x + (y if keep is None else keep[1] * y)


BLOCKS: dict[str, Callable[[MixerConfig], nn.Module]] = {
    "resmlp": ResMlpBlock,
    "gmlp": GMlpBlock,
    "gmixer": GMixerBlock,
}
"""By `MixerConfig.model_type`."""


def last_norm(config: MixerConfig) -> nn.Module:
    """The norm after the last block."""
    if config.model_type == "resmlp":
        return Affine(config.hidden_dim)
    return LayerNorm(config.hidden_dim, eps=config.layer_norm_eps)
