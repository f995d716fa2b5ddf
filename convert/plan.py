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
from mixer_mlx.config import FAMILIES, MixerConfig
from mixer_mlx.errors import ConversionError
from mixer_mlx.model import MlpMixer

from .names import TIMM, TIMM_GMIXER, Axes, Layout, detect, is_usual
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
            if axes and (rest := _unnamed(axes, value.shape)) is not None:
                shape = [value.shape[axis] for axis in axes]
                value = value.transpose(*axes, *rest).reshape(shape)
            ours[name] = value
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
        _refuse(layout, [f"there are {num_blocks} blocks in {len(shapes)} tensors"])
    names = layout.names(num_blocks, head=layout.table["head.weight"][0] in shapes)
    foreign_names = {foreign for foreign, _ in names.values()}
    integers, state = _integers(source, prefix, foreign_names)
    faults = [f"{name} is missing" for name in sorted(foreign_names - set(shapes) - integers)]
    faults += [f"{name} is left over" for name in sorted(set(shapes) - foreign_names)]
    faults += [f"{name} holds integers" for name in sorted(integers)]
    _refuse(layout, faults)
    ours = {
        name: _our_shape(layout, axes, shapes[foreign]) for name, (foreign, axes) in names.items()
    }
    layout = _gated(layout, ours)
    if settings.model_type not in (None, layout.model_type):
        raise ConversionError(
            f"The weights are those of {_a(layout)}, but their config.json is of another family, "
            f"{FAMILIES[settings.model_type]}; use the config that belongs to them."
        )
    config, assumed = _config(ours, num_blocks, layout, settings)
    expected = checkpoint.parameter_shapes(MlpMixer(config))
    _refuse(
        layout,
        [
            f"{names[name][0]} has shape {list(shapes[names[name][0]])}, but {name} has "
            f"{list(expected[name])}"
            for name in names
            if ours[name] != expected[name]
        ],
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


def _refuse(layout: Layout, faults: list[str]) -> None:
    if faults:
        raise ConversionError(f"The weights don't form {_a(layout)}: {summarize(faults)}.")


def _a(layout: Layout) -> str:
    """The family, with its article."""
    return f"{'an' if layout.model_type == 'mlp_mixer' else 'a'} {FAMILIES[layout.model_type]}"


def _gated(layout: Layout, shapes: Shapes) -> Layout:
    """gMixer's layout for weights with timm's names most of whose MLPs halve the hidden layer."""
    if layout is not TIMM:
        return layout
    first = {name: shape for name, shape in shapes.items() if name.endswith(".fc1.weight")}
    halved = [
        shape[:1] == tuple(2 * side for side in shapes[name.replace("fc1", "fc2")][1:])
        for name, shape in first.items()
    ]
    return TIMM_GMIXER if 2 * sum(halved) > len(halved) else layout


def _our_shape(layout: Layout, axes: Axes, foreign: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that `Plan.apply` will give; unchanged if the number of axes is wrong."""
    shape = tuple(side for side in foreign if side != 1) if layout.squeeze else foreign
    if not axes or _unnamed(axes, shape) is None:
        return shape
    return tuple(shape[axis] for axis in axes)


def _unnamed(axes: tuple[int, ...], shape: tuple[int, ...]) -> list[int] | None:
    """The other axes of a foreign tensor, all of length one; None if the tensor isn't like that."""
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    fits = max(axes) < len(shape) and all(shape[axis] == 1 for axis in rest)
    return rest if fits else None


def _config(
    shapes: Shapes, num_blocks: int, layout: Layout, settings: Settings
) -> tuple[MixerConfig, list[str]]:
    """The architecture that our shapes imply, and what had to be assumed."""
    first = (next(name for name in names if name in shapes) for names in (_TOKENS, _CHANNELS))
    telling = ("stem.weight", *first)
    stem, tokens, channels = (shapes[name] for name in telling)
    if (len(stem), len(tokens), len(channels)) != (4, 2, 2) or stem[1] != stem[2]:
        _refuse(layout, [f"{name} would have shape {list(shapes[name])}" for name in telling])
    assumed = []
    size = settings.image_size
    if size is None:
        size = _square(tokens[1], stem[1])
        assumed.append(f"image size {size[0]}x{size[1]}, a square of {tokens[1]} patches")
    if settings.hidden_act is None and "architecture" not in settings.source:
        assumed.append(f"activation {layout.hidden_act}, as in {layout.origin}")
    config = MixerConfig(
        model_type=layout.model_type,
        image_size=size,
        patch_size=stem[1],
        in_channels=stem[3],
        num_blocks=num_blocks,
        hidden_dim=stem[0],
        tokens_mlp_dim=tokens[0] if layout.model_type in ("mlp_mixer", "gmixer") else 0,
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


# A block's first matrix over the tokens, and its first over the channels, in one family or another.
_TOKENS = [f"blocks.0.{name}.weight" for name in ("token_mixing.fc1", "token_mixing", "gate.proj")]
_CHANNELS = [f"blocks.0.{name}.weight" for name in ("channel_mixing.fc1", "fc1")]


def _square(num_tokens: int, patch_size: int) -> tuple[int, int]:
    side = isqrt(num_tokens)
    if side * side != num_tokens:
        raise ConversionError(
            f"The weights are made for {num_tokens} patches of {patch_size}x{patch_size}, which "
            "don't form a square; give the image size (`image_size=(H, W)`)."
        )
    return side * patch_size, side * patch_size
