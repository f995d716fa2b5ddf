"""Smaller weights: matrices in groups of 4- or 8-bit numbers, in the formats and names of MLX.

Quantised are linear maps over the channels, the head and the stem, if groups divide their input.
The matrices of token mixing stay in floating point: they multiply from the left, along an axis as
long as the number of patches (196), which no group divides, and they are few.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mixer_mlx.ops.linear import over_channels

from .checks import check_choice, check_keys, wrong
from .choices import QuantizationMode
from .errors import ConfigError
from .layers import ChannelLinear
from .model import MlpMixer, PatchEmbedding, patches

BITS: dict[QuantizationMode, tuple[int, ...]] = {"affine": (4, 8), "mxfp4": (4,), "mxfp8": (8,)}
GROUP_SIZES: dict[QuantizationMode, tuple[int, ...]] = {
    "affine": (64, 32, 128),
    "mxfp4": (32,),
    "mxfp8": (32,),
}
"""What each mode takes; the first is the default, as in mlx-lm."""


@dataclass(frozen=True, init=False)
class Quantization:
    """How weights are stored: `bits` each, with a scale for each `group_size` along a row.

    `mode` "affine": integers, with a scale and an offset in the model's dtype; "mxfp4" and "mxfp8":
    floating-point numbers (E2M1, E4M3) with a power of two as scale, of the OCP Microscaling
    Formats. The defaults are mlx-lm's: affine 4 and 64. Raises ConfigError for what MLX lacks.
    """

    group_size: int
    bits: int
    mode: QuantizationMode

    def __init__(
        self,
        bits: int | None = None,
        group_size: int | None = None,
        mode: QuantizationMode = "affine",
    ):
        check_choice("mode", mode, QuantizationMode)
        values = {
            "group_size": _checked("group_size", group_size, GROUP_SIZES[mode], mode),
            "bits": _checked("bits", bits, BITS[mode], mode),
            "mode": mode,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, int | str]:
        """What `config.json` has under `quantization`, as in mlx-lm."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Quantization":
        """The inverse of `to_dict`. Raises ConfigError for a missing, unknown or wrong key."""
        check_keys("quantization", values, cls, all_=True)
        return cls(**values)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """For people: "4 bits, affine, groups of 64"."""
        return f"{self.bits} bits, {self.mode}, groups of {self.group_size}"


def _checked(name: str, value: object, allowed: tuple[int, ...], mode: str) -> int:
    if value is None:
        return allowed[0]
    if type(value) is not int or value not in allowed:
        *others, last = sorted(allowed)
        expected = f"{', '.join(map(str, others))} or {last}" if others else str(last)
        raise wrong(name, value, f"{expected} in the mode {mode}")
    return value


class QuantizedLinear(nn.Module):
    """A ChannelLinear with a quantised weight: (..., in) -> (..., out).

    Its parameters are those of `mlx.nn.QuantizedLinear`: `weight` (out, in * bits / 32) uint32,
    `scales` and, in the mode affine, `biases` (out, in / group_size), and `bias` (out,).

    The weight is dequantised for each batch: a batch has a row for each patch, many more than a
    language model's, and for so many MLX's product of quantised matrices is no faster than that of
    floating-point ones, and on the CPU 20 times as slow.
    """

    def __init__(self, weight: mx.array, bias: mx.array, quantization: Quantization):
        super().__init__()
        settings: dict[str, Any] = quantization.to_dict()
        self.weight, self.scales, *biases = mx.quantize(weight, **settings)
        if biases:
            self.biases = biases[0]
        self.bias = bias
        self._quantization = quantization

    def _extra_repr(self) -> str:
        out_dim, words = self.weight.shape
        in_dim = words * 32 // self._quantization.bits
        return f"input_dims={in_dim}, output_dims={out_dim}, {self._quantization}"

    def matrix(self) -> mx.array:
        """The weight (out, in), in the dtype of the bias."""
        settings: dict[str, Any] = self._quantization.to_dict()
        return mx.dequantize(
            self.weight, self.scales, self.get("biases"), **settings, dtype=self.bias.dtype
        )

    def plain(self) -> nn.Module:
        """The layer as it was before, with the weights that this one computes with."""
        weight = self.matrix()
        layer = ChannelLinear(weight.shape[1], weight.shape[0])
        layer.update({"weight": weight, "bias": self.bias})
        return layer

    def __call__(self, x: mx.array) -> mx.array:
        return over_channels(x, self.matrix(), self.bias)


class QuantizedPatchEmbedding(QuantizedLinear):
    """A PatchEmbedding with a quantised weight, whose rows are patches, pixel by pixel."""

    def __init__(self, stem: PatchEmbedding, quantization: Quantization):
        C, P, _, channels = stem.weight.shape
        super().__init__(stem.weight.reshape(C, -1), stem.bias, quantization)
        self._patch_size, self._in_channels = P, channels

    def plain(self) -> nn.Module:
        weight, P = self.matrix(), self._patch_size
        stem = PatchEmbedding(P, self._in_channels, len(weight))
        stem.update({"weight": weight.reshape(-1, P, P, self._in_channels), "bias": self.bias})
        return stem

    def __call__(self, x: mx.array) -> mx.array:
        return super().__call__(patches(x, self._patch_size))


def quantize(model: MlpMixer, quantization: Quantization, *, origin: object = None) -> MlpMixer:
    """A copy of a model with quantised weights; the others are shared with it, in their dtype.

    Raises ConfigError for a model that is quantised already, naming `origin`, and for one without
    any layer whose input is a multiple of the group size.
    """
    model.require_unquantized("be quantised again", origin)
    made = MlpMixer(model.config)
    made.update(model.parameters())
    quantize_layers(made, quantization)
    mx.eval(made.parameters())
    return made


def quantize_layers(model: MlpMixer, quantization: Quantization) -> None:
    """As `quantize`, in place, and without computing anything yet."""
    layers: list[tuple[str, nn.Module]] = []
    for name, layer in model.named_modules():
        if not isinstance(layer, (ChannelLinear, PatchEmbedding)):
            continue
        if layer.weight[0].size % quantization.group_size:
            continue
        if isinstance(layer, PatchEmbedding):
            layers.append((name, QuantizedPatchEmbedding(layer, quantization)))
        else:
            layers.append((name, QuantizedLinear(layer.weight, layer.bias, quantization)))
    if not layers:
        raise ConfigError(
            f"No layer of this model has inputs that are a multiple of {quantization.group_size}, "
            "the group size, so nothing can be quantised; choose smaller groups, or a dtype."
        )
    model.update_modules(tree_unflatten(layers))


def dequantize(model: MlpMixer) -> MlpMixer:
    """The same model without quantised layers, which computes the same; itself if it has none."""
    if not model.quantized:
        return model
    made = cast(model, model.dtype)
    layers = [
        (name, layer.plain())
        for name, layer in made.named_modules()
        if isinstance(layer, QuantizedLinear)
    ]
    made.update_modules(tree_unflatten(layers))
    mx.eval(made.parameters())
    return made


def cast(model: MlpMixer, dtype: mx.Dtype) -> MlpMixer:
    """A copy of a model, with all its layers, whose floating-point weights are of a dtype."""
    weights: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    shared: dict[int, Any] = {id(value): value for value in weights.values()}
    made = copy.deepcopy(model, shared)
    made.set_dtype(dtype)
    return made
