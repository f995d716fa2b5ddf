"""MLP-Mixer, as in the paper (arXiv 2105.01601) and `vit_jax/models_mixer.py`.

Shape letters: N images, H x W pixels, S tokens (patches in raster order), C hidden width,
D_S and D_C the widths inside the token-mixing and the channel-mixing MLP. In timm's words
`pre_logits(x)` is `forward_head(forward_features(x), pre_logits=True)`.
"""

from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mixer_mlx.ops.linear import over_channels, plus_tokens

from . import siblings
from .config import MixerConfig
from .errors import ConfigError
from .layers import ChannelLinear, LayerNorm, MlpBlock, TokenLinear, lecun_normal
from .shuffle import shuffled


class Intermediates(NamedTuple):
    """A Mixer's activations; `logits` equals `pre_logits` in a model without a head."""

    stem: mx.array  # (N, S, C)
    blocks: list[mx.array]  # the output of each block, (N, S, C)
    pre_logits: mx.array  # (N, C)
    logits: mx.array  # (N, num_classes)


class PatchEmbedding(nn.Module):
    """One linear map shared by all patches: (N, H, W, in) -> (N, S, C).

    `weight` is (C, P, P, in), a P x P convolution of stride P. Computed as one matrix product: it
    costs a copy of the images, and its gradient is a matrix product too.
    """

    def __init__(self, patch_size: int, in_channels: int, dim: int):
        super().__init__()
        self.weight = lecun_normal((dim, patch_size, patch_size, in_channels))
        self.bias = mx.zeros(dim)

    def _extra_repr(self) -> str:
        C, P, _, channels = self.weight.shape
        return f"in_channels={channels}, dim={C}, patch_size={P}"

    def __call__(self, x: mx.array) -> mx.array:
        C, P, _, _ = self.weight.shape
        return over_channels(patches(x, P), self.weight.reshape(C, -1), self.bias)


def patches(x: mx.array, P: int) -> mx.array:
    """Images (N, H, W, in), cut into patches in raster order, pixel by pixel: (N, S, P*P*in)."""
    _, H, W, channels = x.shape
    S = (H // P) * (W // P)
    x = x.reshape(-1, H // P, P, W // P, P, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, S, P * P * channels)


class MixerBlock(nn.Module):
    """(N, S, C) -> (N, S, C): mix the tokens, then the channels, each with a skip connection.

    `keep` (2, N, 1, 1) scales the two branches of each example, as stochastic depth does.
    """

    def __init__(self, config: MixerConfig):
        super().__init__()
        S, C = config.num_tokens, config.hidden_dim
        act, eps = config.hidden_act, config.layer_norm_eps
        self.norm1 = LayerNorm(C, eps=eps)
        self.token_mixing = MlpBlock(TokenLinear, S, config.tokens_mlp_dim, act)
        self.norm2 = LayerNorm(C, eps=eps)
        self.channel_mixing = MlpBlock(ChannelLinear, C, config.channels_mlp_dim, act)

    def __call__(self, x: mx.array, keep: mx.array | None = None) -> mx.array:
        y = self.token_mixing(self.norm1(x))
        x = x + (y if keep is None else keep[0] * y)
        y = self.channel_mixing(self.norm2(x))
        return x + (y if keep is None else keep[1] * y)

    def lean(self, x: mx.array) -> mx.array:
        """The same without the last bias of the token mixing: on a GPU in one kernel less.

        It is the same for all channels of a token, so every later layer norm takes it out again.
        Without it, the skip connection is the addend of the matrix product.
        """
        mlp = self.token_mixing
        if type(mlp.fc2) is not TokenLinear:  # it has adapters
            return self(x)
        x = plus_tokens(x, mlp.hidden(self.norm1(x)), mlp.fc2.weight)
        return x + self.channel_mixing(self.norm2(x))


class MlpMixer(nn.Module):
    """Images, float (N, H, W, in) and already normalised, to logits (N, num_classes).

    With `num_classes` 0 the result is the pre-logits, (N, C). Initialised as Flax does: kernels
    lecun-normal, biases and head zero. Raises ConfigError for images of another size.

    The frame of ResMLP, gMLP and gMixer, too: `config.model_type` chooses the block.
    """

    def __init__(self, config: MixerConfig):
        super().__init__()
        self._config = config
        self.stem = PatchEmbedding(config.patch_size, config.in_channels, config.hidden_dim)
        block = {"mlp_mixer": MixerBlock, **siblings.BLOCKS}[config.model_type]
        self.blocks = [block(config) for _ in range(config.num_blocks)]
        self.norm = siblings.last_norm(config)
        if config.num_classes:
            self.head = ChannelLinear(config.hidden_dim, config.num_classes)
            self.head.weight = mx.zeros_like(self.head.weight)

    def _extra_repr(self) -> str:
        H, W = self._config.image_size
        return f"image_size=({H}, {W}), num_parameters={self._config.num_parameters:,}"

    @property
    def config(self) -> MixerConfig:
        """The sizes of this model."""
        return self._config

    def with_head(self, num_classes: int) -> "MlpMixer":
        """A model with a new head, all zeros, for so many classes; 0 takes the head off.

        It shares all other weights with this one. Raises ConfigError for a quantised model.
        """
        self.require_unquantized("get another head")
        model = MlpMixer(self._config.replace(num_classes=num_classes))
        model.update({name: part for name, part in self.parameters().items() if name != "head"})
        if num_classes:
            model.head.set_dtype(self.dtype)
        mx.eval(model.parameters())
        return model

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of the weights; images are cast to it."""
        return self.norm.weight.dtype

    @property
    def quantized(self) -> bool:
        """Whether weights of it are quantised; see `quantization`."""
        return any("scales" in module for module in self.modules())

    def require_unquantized(self, purpose: str, origin: object = None) -> None:
        """Raise ConfigError for a quantised model, which can't `purpose`; `origin` names what can.

        Rounding hides small changes of weights, so these can only be trained or changed before.
        """
        if self.quantized:
            raise ConfigError(
                f"A quantised model can't {purpose}; use {origin or 'the one it was made from'}."
            )

    def __call__(self, x: mx.array) -> mx.array:
        return self.classify(self.pre_logits(x))

    def pre_logits(self, x: mx.array) -> mx.array:
        """Images (N, H, W, in) -> (N, C), what the head classifies."""
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.pool(x)

    def intermediates(self, x: mx.array) -> Intermediates:
        """The output of the stem and of every block, the pre-logits and the logits."""
        stem = x = self.embed(x)
        blocks = []
        for block in self.blocks:
            x = block(x)
            blocks.append(x)
        pre_logits = self.pool(x)
        return Intermediates(stem, blocks, pre_logits, self.classify(pre_logits))

    def embed(self, x: mx.array) -> mx.array:
        """Images (N, H, W, in) -> tokens (N, S, C)."""
        expected = (*self._config.image_size, self._config.in_channels)
        if x.ndim != 4 or x.shape[1:] != expected:
            raise ConfigError(
                f"Expected images of shape (N, {', '.join(map(str, expected))}), got "
                f"{tuple(x.shape)}; resize them, or resize the model."
            )
        if self._config.shuffle:
            x = shuffled(x, self._config.shuffle, self._config.patch_size)
        return self.stem(x.astype(self.dtype))

    def pool(self, x: mx.array) -> mx.array:
        """Tokens (N, S, C) -> pre-logits (N, C): layer norm, then the mean over tokens.

        The mean is computed in float32: MLX sums in the array's own dtype, and a bfloat16 mean over
        196 tokens loses its third digit.
        """
        return self.norm(x).astype(mx.float32).mean(axis=1).astype(x.dtype)

    def classify(self, pre_logits: mx.array) -> mx.array:
        """Pre-logits (N, C) -> logits (N, num_classes); unchanged in a model without a head."""
        return self.head(pre_logits) if self._config.num_classes else pre_logits
