"""The names of a model's weights in other code, as tables.

A layout maps each of our names to the foreign name of the same tensor, and to the order of the
foreign axes that gives our axes. Sources: google-research/vision_transformer `models_mixer.py`
("jax"), google-research/big_vision `mlp_mixer.py` as of 2022, which still read the names of older
checkpoints ("jax-old"), pytorch-image-models `mlp_mixer.py` ("timm", also of the siblings), and
facebookresearch/deit `resmlp_models.py` ("deit").
"""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from mixer_mlx.choices import HiddenAct, ModelType
from mixer_mlx.errors import ConversionError

Axes = tuple[int, ...] | None

SAME: Axes = None
DENSE: Axes = (1, 0)  # Flax's Dense: (in, out) -> (out, in)
HWIO: Axes = (3, 0, 1, 2)  # Flax's convolution -> (out, H, W, in)
OIHW: Axes = (0, 2, 3, 1)  # PyTorch's convolution -> (out, H, W, in)
LAST: Axes = (2,)  # (1, 1, channels) -> (channels,); axes that aren't named have length one

NamesTable = Mapping[str, tuple[str, Axes]]


@dataclass(frozen=True)
class Layout:
    """One convention of names; in `table`, {i} stands for the number of a block.

    `hidden_act` is the activation in the layout's own code. `squeeze`: axes of length one are
    dropped before the others are ordered.
    """

    name: str
    origin: str
    hidden_act: HiddenAct
    table: NamesTable
    squeeze: bool = False
    model_type: ModelType = "mlp_mixer"

    def names(self, num_blocks: int, *, head: bool) -> dict[str, tuple[str, Axes]]:
        """Our name -> (foreign name, axes), for a model of `num_blocks` blocks."""
        return {
            ours.format(i=i): (theirs.format(i=i), axes)
            for ours, (theirs, axes) in self.table.items()
            for i in range(num_blocks if "{i}" in ours else 1)
            if head or not ours.startswith("head.")
        }

    def count_blocks(self, names: Collection[str]) -> int:
        """One more than the highest number of a block among the foreign `names`."""
        start = next(iter(self._of_blocks())).split("{i}")[0]
        pattern = re.compile(re.escape(start) + "([0-9]{1,9})[/.]")
        numbers = [int(match[1]) for match in map(pattern.match, names) if match]
        return max(numbers, default=-1) + 1

    def share(self, names: Collection[str], prefix: str) -> float:
        """Which fraction of the foreign names of a first block is among `names`."""
        block = [prefix + name.format(i=0) for name in self._of_blocks()]
        return sum(name in names for name in block) / len(block)

    def _of_blocks(self) -> list[str]:
        return [theirs for theirs, _ in self.table.values() if "{i}" in theirs]


JAX = Layout(
    name="jax",
    origin="google-research/vision_transformer",
    hidden_act="gelu_tanh",
    table={
        "stem.weight": ("stem/kernel", HWIO),
        "stem.bias": ("stem/bias", SAME),
        "blocks.{i}.norm1.weight": ("MixerBlock_{i}/LayerNorm_0/scale", SAME),
        "blocks.{i}.norm1.bias": ("MixerBlock_{i}/LayerNorm_0/bias", SAME),
        "blocks.{i}.token_mixing.fc1.weight": ("MixerBlock_{i}/token_mixing/Dense_0/kernel", DENSE),
        "blocks.{i}.token_mixing.fc1.bias": ("MixerBlock_{i}/token_mixing/Dense_0/bias", SAME),
        "blocks.{i}.token_mixing.fc2.weight": ("MixerBlock_{i}/token_mixing/Dense_1/kernel", DENSE),
        "blocks.{i}.token_mixing.fc2.bias": ("MixerBlock_{i}/token_mixing/Dense_1/bias", SAME),
        "blocks.{i}.norm2.weight": ("MixerBlock_{i}/LayerNorm_1/scale", SAME),
        "blocks.{i}.norm2.bias": ("MixerBlock_{i}/LayerNorm_1/bias", SAME),
        "blocks.{i}.channel_mixing.fc1.weight": (
            "MixerBlock_{i}/channel_mixing/Dense_0/kernel",
            DENSE,
        ),
        "blocks.{i}.channel_mixing.fc1.bias": ("MixerBlock_{i}/channel_mixing/Dense_0/bias", SAME),
        "blocks.{i}.channel_mixing.fc2.weight": (
            "MixerBlock_{i}/channel_mixing/Dense_1/kernel",
            DENSE,
        ),
        "blocks.{i}.channel_mixing.fc2.bias": ("MixerBlock_{i}/channel_mixing/Dense_1/bias", SAME),
        "norm.weight": ("pre_head_layer_norm/scale", SAME),
        "norm.bias": ("pre_head_layer_norm/bias", SAME),
        "head.weight": ("head/kernel", DENSE),
        "head.bias": ("head/bias", SAME),
    },
)

_OLD_BLOCK = "Mixer/encoderblock_{i}"
JAX_OLD = Layout(
    name="jax-old",
    origin="google-research/big_vision",
    hidden_act="gelu_tanh",
    squeeze=True,
    table={
        "stem.weight": ("embedding/kernel", HWIO),
        "stem.bias": ("embedding/bias", SAME),
        "blocks.{i}.norm1.weight": (f"{_OLD_BLOCK}/LayerNorm_0/scale", SAME),
        "blocks.{i}.norm1.bias": (f"{_OLD_BLOCK}/LayerNorm_0/bias", SAME),
        "blocks.{i}.token_mixing.fc1.weight": (f"{_OLD_BLOCK}/token_mixing_phase_0/kernel1", DENSE),
        "blocks.{i}.token_mixing.fc1.bias": (f"{_OLD_BLOCK}/token_mixing_phase_0/bias1", SAME),
        "blocks.{i}.token_mixing.fc2.weight": (f"{_OLD_BLOCK}/token_mixing_phase_0/kernel2", DENSE),
        "blocks.{i}.token_mixing.fc2.bias": (f"{_OLD_BLOCK}/token_mixing_phase_0/bias2", SAME),
        "blocks.{i}.norm2.weight": (f"{_OLD_BLOCK}/LayerNorm_1/scale", SAME),
        "blocks.{i}.norm2.bias": (f"{_OLD_BLOCK}/LayerNorm_1/bias", SAME),
        "blocks.{i}.channel_mixing.fc1.weight": (
            f"{_OLD_BLOCK}/channel_mixing_phase_0/kernel1",
            DENSE,
        ),
        "blocks.{i}.channel_mixing.fc1.bias": (f"{_OLD_BLOCK}/channel_mixing_phase_0/bias1", SAME),
        "blocks.{i}.channel_mixing.fc2.weight": (
            f"{_OLD_BLOCK}/channel_mixing_phase_0/kernel2",
            DENSE,
        ),
        "blocks.{i}.channel_mixing.fc2.bias": (f"{_OLD_BLOCK}/channel_mixing_phase_0/bias2", SAME),
        "norm.weight": ("Mixer/encoder_norm/scale", SAME),
        "norm.bias": ("Mixer/encoder_norm/bias", SAME),
        "head.weight": ("head/kernel", DENSE),
        "head.bias": ("head/bias", SAME),
    },
)

TIMM = Layout(
    name="timm",
    origin="pytorch-image-models",
    hidden_act="gelu",
    table={
        "stem.weight": ("stem.proj.weight", OIHW),
        "stem.bias": ("stem.proj.bias", SAME),
        "blocks.{i}.norm1.weight": ("blocks.{i}.norm1.weight", SAME),
        "blocks.{i}.norm1.bias": ("blocks.{i}.norm1.bias", SAME),
        "blocks.{i}.token_mixing.fc1.weight": ("blocks.{i}.mlp_tokens.fc1.weight", SAME),
        "blocks.{i}.token_mixing.fc1.bias": ("blocks.{i}.mlp_tokens.fc1.bias", SAME),
        "blocks.{i}.token_mixing.fc2.weight": ("blocks.{i}.mlp_tokens.fc2.weight", SAME),
        "blocks.{i}.token_mixing.fc2.bias": ("blocks.{i}.mlp_tokens.fc2.bias", SAME),
        "blocks.{i}.norm2.weight": ("blocks.{i}.norm2.weight", SAME),
        "blocks.{i}.norm2.bias": ("blocks.{i}.norm2.bias", SAME),
        "blocks.{i}.channel_mixing.fc1.weight": ("blocks.{i}.mlp_channels.fc1.weight", SAME),
        "blocks.{i}.channel_mixing.fc1.bias": ("blocks.{i}.mlp_channels.fc1.bias", SAME),
        "blocks.{i}.channel_mixing.fc2.weight": ("blocks.{i}.mlp_channels.fc2.weight", SAME),
        "blocks.{i}.channel_mixing.fc2.bias": ("blocks.{i}.mlp_channels.fc2.bias", SAME),
        "norm.weight": ("norm.weight", SAME),
        "norm.bias": ("norm.bias", SAME),
        "head.weight": ("head.weight", SAME),
        "head.bias": ("head.bias", SAME),
    },
)

TIMM_GMIXER = replace(TIMM, name="timm-gmixer", hidden_act="silu", model_type="gmixer")
"""The same names; the shapes tell the two apart, see `plan`."""

TIMM_RESMLP = Layout(
    name="timm-resmlp",
    origin="pytorch-image-models",
    hidden_act="gelu",
    model_type="resmlp",
    table={
        "stem.weight": ("stem.proj.weight", OIHW),
        "stem.bias": ("stem.proj.bias", SAME),
        "blocks.{i}.norm1.weight": ("blocks.{i}.norm1.alpha", LAST),
        "blocks.{i}.norm1.bias": ("blocks.{i}.norm1.beta", LAST),
        "blocks.{i}.token_mixing.weight": ("blocks.{i}.linear_tokens.weight", SAME),
        "blocks.{i}.token_mixing.bias": ("blocks.{i}.linear_tokens.bias", SAME),
        "blocks.{i}.scale1": ("blocks.{i}.ls1", SAME),
        "blocks.{i}.norm2.weight": ("blocks.{i}.norm2.alpha", LAST),
        "blocks.{i}.norm2.bias": ("blocks.{i}.norm2.beta", LAST),
        "blocks.{i}.channel_mixing.fc1.weight": ("blocks.{i}.mlp_channels.fc1.weight", SAME),
        "blocks.{i}.channel_mixing.fc1.bias": ("blocks.{i}.mlp_channels.fc1.bias", SAME),
        "blocks.{i}.channel_mixing.fc2.weight": ("blocks.{i}.mlp_channels.fc2.weight", SAME),
        "blocks.{i}.channel_mixing.fc2.bias": ("blocks.{i}.mlp_channels.fc2.bias", SAME),
        "blocks.{i}.scale2": ("blocks.{i}.ls2", SAME),
        "norm.weight": ("norm.alpha", LAST),
        "norm.bias": ("norm.beta", LAST),
        "head.weight": ("head.weight", SAME),
        "head.bias": ("head.bias", SAME),
    },
)

DEIT_RESMLP = Layout(
    name="deit",
    origin="facebookresearch/deit",
    hidden_act="gelu",
    model_type="resmlp",
    table={
        "stem.weight": ("patch_embed.proj.weight", OIHW),
        "stem.bias": ("patch_embed.proj.bias", SAME),
        "blocks.{i}.norm1.weight": ("blocks.{i}.norm1.alpha", SAME),
        "blocks.{i}.norm1.bias": ("blocks.{i}.norm1.beta", SAME),
        "blocks.{i}.token_mixing.weight": ("blocks.{i}.attn.weight", SAME),
        "blocks.{i}.token_mixing.bias": ("blocks.{i}.attn.bias", SAME),
        "blocks.{i}.scale1": ("blocks.{i}.gamma_1", SAME),
        "blocks.{i}.norm2.weight": ("blocks.{i}.norm2.alpha", SAME),
        "blocks.{i}.norm2.bias": ("blocks.{i}.norm2.beta", SAME),
        "blocks.{i}.channel_mixing.fc1.weight": ("blocks.{i}.mlp.fc1.weight", SAME),
        "blocks.{i}.channel_mixing.fc1.bias": ("blocks.{i}.mlp.fc1.bias", SAME),
        "blocks.{i}.channel_mixing.fc2.weight": ("blocks.{i}.mlp.fc2.weight", SAME),
        "blocks.{i}.channel_mixing.fc2.bias": ("blocks.{i}.mlp.fc2.bias", SAME),
        "blocks.{i}.scale2": ("blocks.{i}.gamma_2", SAME),
        "norm.weight": ("norm.alpha", SAME),
        "norm.bias": ("norm.beta", SAME),
        "head.weight": ("head.weight", SAME),
        "head.bias": ("head.bias", SAME),
    },
)

TIMM_GMLP = Layout(
    name="timm-gmlp",
    origin="pytorch-image-models",
    hidden_act="gelu",
    model_type="gmlp",
    table={
        "stem.weight": ("stem.proj.weight", OIHW),
        "stem.bias": ("stem.proj.bias", SAME),
        "blocks.{i}.norm.weight": ("blocks.{i}.norm.weight", SAME),
        "blocks.{i}.norm.bias": ("blocks.{i}.norm.bias", SAME),
        "blocks.{i}.fc1.weight": ("blocks.{i}.mlp_channels.fc1.weight", SAME),
        "blocks.{i}.fc1.bias": ("blocks.{i}.mlp_channels.fc1.bias", SAME),
        "blocks.{i}.gate.norm.weight": ("blocks.{i}.mlp_channels.gate.norm.weight", SAME),
        "blocks.{i}.gate.norm.bias": ("blocks.{i}.mlp_channels.gate.norm.bias", SAME),
        "blocks.{i}.gate.proj.weight": ("blocks.{i}.mlp_channels.gate.proj.weight", SAME),
        "blocks.{i}.gate.proj.bias": ("blocks.{i}.mlp_channels.gate.proj.bias", SAME),
        "blocks.{i}.fc2.weight": ("blocks.{i}.mlp_channels.fc2.weight", SAME),
        "blocks.{i}.fc2.bias": ("blocks.{i}.mlp_channels.fc2.bias", SAME),
        "norm.weight": ("norm.weight", SAME),
        "norm.bias": ("norm.bias", SAME),
        "head.weight": ("head.weight", SAME),
        "head.bias": ("head.bias", SAME),
    },
)

LAYOUTS = (JAX, JAX_OLD, TIMM, TIMM_RESMLP, TIMM_GMLP, DEIT_RESMLP)
TIMM_LAYOUTS = {layout.model_type: layout for layout in (TIMM, TIMM_RESMLP, TIMM_GMLP, TIMM_GMIXER)}
"""timm's names, by `MixerConfig.model_type`."""

PREFIXES = ("", "params/", "opt/target/", "model.")
"""What training code puts before the names of the model; other names are its own state."""

_USUAL = re.compile(r"(module\.|_orig_mod\.|model\.)*(params/|opt/target/)?")
"""PREFIXES, and those of PyTorch's wrappers (parallel, compiled, Lightning's), nested."""


def detect(names: Collection[str]) -> tuple[Layout, str]:
    """The layout of foreign names, and the prefix before each of the model's.

    Any prefix that all names share counts, and behind it, PREFIXES. Of the layouts whose stem is
    there, the one that shares most names with the first block. Raises ConversionError for anything
    else.
    """
    if "stem.weight" in names:
        raise ConversionError("These are the weights of a native model; give its folder instead.")
    for shared in (_shared_prefix(names), ""):
        for prefix in (shared + prefix for prefix in PREFIXES):
            found = {
                layout.share(names, prefix): layout
                for layout in reversed(LAYOUTS)
                if prefix + layout.table["stem.weight"][0] in names
            }
            if found and max(found) > _STRANGER:
                return found[max(found)], prefix
    some = ", ".join(sorted(names)[:4]) or "none"
    raise ConversionError(
        f"These weights don't have the names of a known MLP-Mixer, ResMLP, gMLP or gMixer (found "
        f"{some}); supported are the official JAX files, timm's, and facebookresearch/deit's "
        "ResMLP."
    )


_STRANGER = 0.34
"""The part of a ResMLP's names that a vision transformer of facebookresearch/deit has, too."""


def is_usual(prefix: str) -> bool:
    """Whether a prefix is one that training code is known to write."""
    return _USUAL.fullmatch(prefix) is not None


def _shared_prefix(names: Collection[str]) -> str:
    """The longest prefix of all names that ends in a dot or a slash."""
    start = os.path.commonprefix(list(names))  # noqa: RUF071  # by characters, as meant
    return start[: max(start.rfind("."), start.rfind("/")) + 1]
