"""Foreign names and shapes -> our architecture, and which tensor goes where.

Every tensor is used once and every parameter filled once, or there is no plan.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt

import mlx.core as mx

from mixer_mlx import checkpoint
from mixer_mlx.checkpoint import summarize
from mixer_mlx.config import MixerConfig
from mixer_mlx.errors import ConversionError
from mixer_mlx.model import MlpMixer

from .names import Axes, Layout, detect, is_usual
from .timm_config import Settings
from .weights.source import Source

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Plan:
    """How the tensors of one source become ours. `names`: ours -> (foreign, axes)."""

    layout: Layout
    names: Mapping[str, tuple[str, Axes]]
    config: MixerConfig
    assumed: tuple[str, ...]

    def apply(self, tensors: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Foreign tensors -> ours, by name and axes."""
        ours = {}
        for name, (foreign, axes) in self.names.items():
            value = tensors[foreign].squeeze() if self.layout.squeeze else tensors[foreign]
            ours[name] = value if axes is None else value.transpose(*axes)
        return ours


def make_plan(source: Source, settings: Settings) -> Plan:
    """Match names and shapes without reading a tensor. Raises ConversionError with all faults."""
    layout, prefix = detect(source.shapes)
    shapes = {
        name.removeprefix(prefix): shape
        for name, shape in source.shapes.items()
        if name.startswith(prefix)
    }
    num_blocks = layout.count_blocks(shapes)
    if not 0 < num_blocks <= len(shapes):
        _refuse([f"there are {num_blocks} blocks in {len(shapes)} tensors"])
    names = layout.names(num_blocks, head=layout.table["head.weight"][0] in shapes)
    foreign_names = {foreign for foreign, _ in names.values()}
    integers, state = _integers(source, prefix, foreign_names)
    faults = [f"{name} is missing" for name in sorted(foreign_names - set(shapes) - integers)]
    faults += [f"{name} is left over" for name in sorted(set(shapes) - foreign_names)]
    faults += [f"{name} holds integers" for name in sorted(integers)]
    _refuse(faults)
    ours = {
        name: _our_shape(layout, axes, shapes[foreign]) for name, (foreign, axes) in names.items()
    }
    config, assumed = _config(ours, num_blocks, layout, settings)
    expected = checkpoint.parameter_shapes(MlpMixer(config))
    _refuse(
        [
            f"{names[name][0]} has shape {list(shapes[names[name][0]])}, but {name} has "
            f"{list(expected[name])}"
            for name in names
            if ours[name] != expected[name]
        ]
    )
    if not is_usual(prefix):
        assumed.append(f"{prefix} is the prefix of all names")
    state += sorted(name for name in source.shapes if not name.startswith(prefix))
    if state:
        verbs = "are training state and were" if len(state) > 1 else "is training state and was"
        assumed.append(f"{summarize(state, limit=3)} {verbs} left out")
    prefixed = {name: (prefix + foreign, axes) for name, (foreign, axes) in names.items()}
    return Plan(layout, prefixed, config, tuple(assumed))


def _integers(source: Source, prefix: str, needed: set[str]) -> tuple[set[str], list[str]]:
    """Tensors of integers among the model's own, without their prefix, and those outside of it."""
    roots = {re.split("[./]", name)[0] for name in needed}
    inside = {
        name
        for name in source.integers
        if name.startswith(prefix) and re.split("[./]", name.removeprefix(prefix))[0] in roots
    }
    return {name.removeprefix(prefix) for name in inside}, sorted(source.integers - inside)


def _refuse(faults: list[str]) -> None:
    if faults:
        raise ConversionError(f"The weights don't form an MLP-Mixer: {summarize(faults)}.")


def _our_shape(layout: Layout, axes: Axes, foreign: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that `Plan.apply` will give; unchanged if the number of axes is wrong."""
    shape = tuple(side for side in foreign if side != 1) if layout.squeeze else foreign
    return tuple(shape[axis] for axis in axes) if axes and len(axes) == len(shape) else shape


def _config(
    shapes: Shapes, num_blocks: int, layout: Layout, settings: Settings
) -> tuple[MixerConfig, list[str]]:
    """The architecture that our shapes imply, and what had to be assumed."""
    stem, tokens, channels = (shapes[name] for name in _TELLING)
    if (len(stem), len(tokens), len(channels)) != (4, 2, 2) or stem[1] != stem[2]:
        _refuse([f"{name} would have shape {list(shapes[name])}" for name in _TELLING])
    if shapes["blocks.0.token_mixing.fc2.weight"] == (tokens[1], tokens[0] // 2):
        raise ConversionError("These are weights of a gMixer; only MLP-Mixer is supported.")
    assumed = []
    size = settings.image_size
    if size is None:
        size = _square(tokens[1], stem[1])
        assumed.append(f"image size {size[0]}x{size[1]}, a square of {tokens[1]} patches")
    if settings.hidden_act is None:
        assumed.append(f"activation {layout.hidden_act}, as in {layout.origin}")
    config = MixerConfig(
        image_size=size,
        patch_size=stem[1],
        in_channels=stem[3],
        num_blocks=num_blocks,
        hidden_dim=stem[0],
        tokens_mlp_dim=tokens[0],
        channels_mlp_dim=channels[0],
        num_classes=shapes["head.weight"][0] if "head.weight" in shapes else 0,
        hidden_act=settings.hidden_act or layout.hidden_act,
    )
    if config.num_tokens != tokens[1]:
        raise ConversionError(
            f"An image of {size[0]}x{size[1]} has {config.num_tokens} patches of "
            f"{stem[1]}x{stem[1]}, but the weights are made for {tokens[1]}; give their image size."
        )
    return config, assumed


_TELLING = (
    "stem.weight",
    "blocks.0.token_mixing.fc1.weight",
    "blocks.0.channel_mixing.fc1.weight",
)


def _square(num_tokens: int, patch_size: int) -> tuple[int, int]:
    side = isqrt(num_tokens)
    if side * side != num_tokens:
        raise ConversionError(
            f"The weights are made for {num_tokens} patches of {patch_size}x{patch_size}, which "
            "don't form a square; give the image size (--image-size HxW)."
        )
    return side * patch_size, side * patch_size
