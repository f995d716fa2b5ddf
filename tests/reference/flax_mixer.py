"""MLP-Mixer in Flax (linen), from the paper (arXiv 2105.01601), with the official names of weights.

Written independently of the library. `parameters` makes its tree of the tensors of an official
`.npz` file. `approximate_gelu` True is what the official weights were trained with (tanh), False
the erf form.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import unflatten_dict

EPS = 1e-6


class Mlp(nn.Module):
    """Dense, GELU, Dense over the last axis, which comes back as long as it was."""

    width: int
    approximate_gelu: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = nn.Dense(self.width, dtype=self.dtype, name="Dense_0")(x)
        hidden = nn.gelu(hidden, approximate=self.approximate_gelu)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="Dense_1")(hidden)


class Block(nn.Module):
    """(N, S, C) -> (N, S, C)."""

    tokens_mlp: int
    channels_mlp: int
    approximate_gelu: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=EPS, dtype=self.dtype, name=name)

        def mlp(width: int, name: str) -> Mlp:
            return Mlp(width, self.approximate_gelu, self.dtype, name=name)

        across = norm("LayerNorm_0")(x).swapaxes(1, 2)  # (N, C, S)
        x = x + mlp(self.tokens_mlp, "token_mixing")(across).swapaxes(1, 2)
        return x + mlp(self.channels_mlp, "channel_mixing")(norm("LayerNorm_1")(x))


class Mixer(nn.Module):
    """Normalised images (N, H, W, channels) -> logits; pre-logits where `classes` is 0.

    `apply(..., mutable=["intermediates"])` also gives `stem`, every `block_i` and `pre_logits`.
    """

    patch: int
    dim: int
    tokens_mlp: int
    channels_mlp: int
    blocks: int
    classes: int
    approximate_gelu: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        sides = (self.patch, self.patch)
        stem = nn.Conv(self.dim, sides, strides=sides, dtype=self.dtype, name="stem")(images)
        self.sow("intermediates", "stem_output", stem)
        x = stem.reshape(len(stem), -1, self.dim)  # (N, S, C)
        for i in range(self.blocks):
            widths = (self.tokens_mlp, self.channels_mlp)
            x = Block(*widths, self.approximate_gelu, self.dtype, name=f"MixerBlock_{i}")(x)
            self.sow("intermediates", f"block_{i}", x)
        x = nn.LayerNorm(epsilon=EPS, dtype=self.dtype, name="pre_head_layer_norm")(x)
        x = x.mean(axis=1)
        self.sow("intermediates", "pre_logits", x)
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x) if self.classes else x


def parameters(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Tensors by official name ("stem/kernel") -> the tree that `Mixer.apply` takes."""
    return unflatten_dict({tuple(name.split("/")): value for name, value in tensors.items()})


def like(tensors: Mapping[str, np.ndarray], **changes: Any) -> Mixer:
    """The Mixer whose weights these are, its sizes read off their shapes."""
    patch, _, _, dim = tensors["stem/kernel"].shape
    names = [name.split("/")[0] for name in tensors]
    sizes = {
        "patch": patch,
        "dim": dim,
        "tokens_mlp": tensors["MixerBlock_0/token_mixing/Dense_0/bias"].size,
        "channels_mlp": tensors["MixerBlock_0/channel_mixing/Dense_0/bias"].size,
        "blocks": len({name for name in names if name.startswith("MixerBlock_")}),
        "classes": tensors["head/bias"].size if "head/bias" in tensors else 0,
    }
    return Mixer(**{**sizes, **changes})
