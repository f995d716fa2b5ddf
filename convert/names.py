"""The names of a model's weights in other code, as tables.

A layout maps each of our modules to the foreign one. The kind of a module has the names of its
tensors and the order of the foreign axes that gives ours; axes not named have length one. Sources:
google-research/vision_transformer `models_mixer.py` ("jax"), google-research/big_vision
`mlp_mixer.py` as of 2022, which still read the names of older checkpoints ("jax-old"),
pytorch-image-models `mlp_mixer.py` ("timm", also of the siblings), and facebookresearch/deit
`resmlp_models.py` ("deit").
"""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from mixer_mlx.choices import HiddenAct, ModelType
from mixer_mlx.errors import ConversionError

Axes = tuple[int, ...] | None

SAME: Axes = None

Module = Mapping[str, tuple[str, Axes]]
"""What follows our name of a module, as ".weight" -> what follows the foreign one, and its axes."""

FLAX_CONV: Module = {".weight": ("/kernel", (3, 0, 1, 2)), ".bias": ("/bias", SAME)}  # HWIO
FLAX_DENSE: Module = {".weight": ("/kernel", (1, 0)), ".bias": ("/bias", SAME)}  # (in, out)
FLAX_NORM: Module = {".weight": ("/scale", SAME), ".bias": ("/bias", SAME)}
FIRST: Module = {".weight": ("/kernel1", (1, 0)), ".bias": ("/bias1", SAME)}  # of an MLP's layers
SECOND: Module = {".weight": ("/kernel2", (1, 0)), ".bias": ("/bias2", SAME)}
TORCH: Module = {".weight": (".weight", SAME), ".bias": (".bias", SAME)}
TORCH_CONV: Module = {".weight": (".weight", (0, 2, 3, 1)), ".bias": (".bias", SAME)}  # OIHW
AFFINE: Module = {".weight": (".alpha", SAME), ".bias": (".beta", SAME)}
TIMM_AFFINE: Module = {".weight": (".alpha", (2,)), ".bias": (".beta", (2,))}  # (1, 1, channels)
SCALE: Module = {"": ("", SAME)}


@dataclass(frozen=True)
class Layout:
    """One convention of names; in `modules`, {i} stands for the number of a block.

    `hidden_act` is the activation in the layout's own code. `squeeze`: axes of length one are
    dropped before the others are ordered.
    """

    name: str
    origin: str
    modules: Mapping[str, tuple[str, Module]]
    hidden_act: HiddenAct = "gelu"
    squeeze: bool = False
    model_type: ModelType = "mlp_mixer"

    @property
    def table(self) -> Mapping[str, tuple[str, Axes]]:
        """Our names -> (foreign names, axes)."""
        return {
            ours + part: (theirs + name, axes)
            for ours, (theirs, module) in self.modules.items()
            for part, (name, axes) in module.items()
        }

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
    modules={
        "stem": ("stem", FLAX_CONV),
        "blocks.{i}.norm1": ("MixerBlock_{i}/LayerNorm_0", FLAX_NORM),
        "blocks.{i}.token_mixing.fc1": ("MixerBlock_{i}/token_mixing/Dense_0", FLAX_DENSE),
        "blocks.{i}.token_mixing.fc2": ("MixerBlock_{i}/token_mixing/Dense_1", FLAX_DENSE),
        "blocks.{i}.norm2": ("MixerBlock_{i}/LayerNorm_1", FLAX_NORM),
        "blocks.{i}.channel_mixing.fc1": ("MixerBlock_{i}/channel_mixing/Dense_0", FLAX_DENSE),
        "blocks.{i}.channel_mixing.fc2": ("MixerBlock_{i}/channel_mixing/Dense_1", FLAX_DENSE),
        "norm": ("pre_head_layer_norm", FLAX_NORM),
        "head": ("head", FLAX_DENSE),
    },
)

_OLD_BLOCK = "Mixer/encoderblock_{i}"
JAX_OLD = Layout(
    name="jax-old",
    origin="google-research/big_vision",
    hidden_act="gelu_tanh",
    squeeze=True,
    modules={
        "stem": ("embedding", FLAX_CONV),
        "blocks.{i}.norm1": (f"{_OLD_BLOCK}/LayerNorm_0", FLAX_NORM),
        "blocks.{i}.token_mixing.fc1": (f"{_OLD_BLOCK}/token_mixing_phase_0", FIRST),
        "blocks.{i}.token_mixing.fc2": (f"{_OLD_BLOCK}/token_mixing_phase_0", SECOND),
        "blocks.{i}.norm2": (f"{_OLD_BLOCK}/LayerNorm_1", FLAX_NORM),
        "blocks.{i}.channel_mixing.fc1": (f"{_OLD_BLOCK}/channel_mixing_phase_0", FIRST),
        "blocks.{i}.channel_mixing.fc2": (f"{_OLD_BLOCK}/channel_mixing_phase_0", SECOND),
        "norm": ("Mixer/encoder_norm", FLAX_NORM),
        "head": ("head", FLAX_DENSE),
    },
)

TIMM = Layout(
    name="timm",
    origin="pytorch-image-models",
    modules={
        "stem": ("stem.proj", TORCH_CONV),
        "blocks.{i}.norm1": ("blocks.{i}.norm1", TORCH),
        "blocks.{i}.token_mixing.fc1": ("blocks.{i}.mlp_tokens.fc1", TORCH),
        "blocks.{i}.token_mixing.fc2": ("blocks.{i}.mlp_tokens.fc2", TORCH),
        "blocks.{i}.norm2": ("blocks.{i}.norm2", TORCH),
        "blocks.{i}.channel_mixing.fc1": ("blocks.{i}.mlp_channels.fc1", TORCH),
        "blocks.{i}.channel_mixing.fc2": ("blocks.{i}.mlp_channels.fc2", TORCH),
        "norm": ("norm", TORCH),
        "head": ("head", TORCH),
    },
)

TIMM_GMIXER = replace(TIMM, name="timm-gmixer", hidden_act="silu", model_type="gmixer")
"""The same names; the shapes tell the two apart, see `plan`."""

TIMM_RESMLP = replace(
    TIMM,
    name="timm-resmlp",
    model_type="resmlp",
    modules={
        "stem": ("stem.proj", TORCH_CONV),
        "blocks.{i}.norm1": ("blocks.{i}.norm1", TIMM_AFFINE),
        "blocks.{i}.token_mixing": ("blocks.{i}.linear_tokens", TORCH),
        "blocks.{i}.scale1": ("blocks.{i}.ls1", SCALE),
        "blocks.{i}.norm2": ("blocks.{i}.norm2", TIMM_AFFINE),
        "blocks.{i}.channel_mixing.fc1": ("blocks.{i}.mlp_channels.fc1", TORCH),
        "blocks.{i}.channel_mixing.fc2": ("blocks.{i}.mlp_channels.fc2", TORCH),
        "blocks.{i}.scale2": ("blocks.{i}.ls2", SCALE),
        "norm": ("norm", TIMM_AFFINE),
        "head": ("head", TORCH),
    },
)

DEIT_RESMLP = Layout(
    name="deit",
    origin="facebookresearch/deit",
    model_type="resmlp",
    modules={
        "stem": ("patch_embed.proj", TORCH_CONV),
        "blocks.{i}.norm1": ("blocks.{i}.norm1", AFFINE),
        "blocks.{i}.token_mixing": ("blocks.{i}.attn", TORCH),
        "blocks.{i}.scale1": ("blocks.{i}.gamma_1", SCALE),
        "blocks.{i}.norm2": ("blocks.{i}.norm2", AFFINE),
        "blocks.{i}.channel_mixing.fc1": ("blocks.{i}.mlp.fc1", TORCH),
        "blocks.{i}.channel_mixing.fc2": ("blocks.{i}.mlp.fc2", TORCH),
        "blocks.{i}.scale2": ("blocks.{i}.gamma_2", SCALE),
        "norm": ("norm", AFFINE),
        "head": ("head", TORCH),
    },
)

TIMM_GMLP = replace(
    TIMM,
    name="timm-gmlp",
    model_type="gmlp",
    modules={
        "stem": ("stem.proj", TORCH_CONV),
        "blocks.{i}.norm": ("blocks.{i}.norm", TORCH),
        "blocks.{i}.fc1": ("blocks.{i}.mlp_channels.fc1", TORCH),
        "blocks.{i}.gate.norm": ("blocks.{i}.mlp_channels.gate.norm", TORCH),
        "blocks.{i}.gate.proj": ("blocks.{i}.mlp_channels.gate.proj", TORCH),
        "blocks.{i}.fc2": ("blocks.{i}.mlp_channels.fc2", TORCH),
        "norm": ("norm", TORCH),
        "head": ("head", TORCH),
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
