"""The names of a Mixer's weights in other code, as tables.

A layout maps each of our names to the foreign name of the same tensor, and to the order of the
foreign axes that gives our axes. Sources: google-research/vision_transformer `models_mixer.py`
("jax"), google-research/big_vision `mlp_mixer.py` as of 2022, which still read the names of older
checkpoints ("jax-old"), and pytorch-image-models `mlp_mixer.py` ("timm").
"""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mixer_mlx.choices import HiddenAct
from mixer_mlx.errors import ConversionError

Axes = tuple[int, ...] | None

SAME: Axes = None
DENSE: Axes = (1, 0)  # Flax's Dense: (in, out) -> (out, in)
HWIO: Axes = (3, 0, 1, 2)  # Flax's convolution -> (out, H, W, in)
OIHW: Axes = (0, 2, 3, 1)  # PyTorch's convolution -> (out, H, W, in)

NamesTable = Mapping[str, tuple[str, Axes]]


@dataclass(frozen=True)
class Layout:
    """One convention of names; in `table`, {i} stands for the number of a block.

    `hidden_act` is the form of GELU in the layout's own code. `squeeze`: axes of length one are
    dropped before the others are ordered.
    """

    name: str
    origin: str
    hidden_act: HiddenAct
    table: NamesTable
    squeeze: bool = False

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
        start, _ = self.table["blocks.{i}.norm1.weight"][0].split("{i}")
        pattern = re.compile(re.escape(start) + "([0-9]{1,9})[/.]")
        numbers = [int(match[1]) for match in map(pattern.match, names) if match]
        return max(numbers, default=-1) + 1


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

LAYOUTS = (JAX, JAX_OLD, TIMM)

PREFIXES = ("", "params/", "opt/target/", "model.")
"""What training code puts before the names of the model; other names are its own state."""

_USUAL = re.compile(r"(module\.|_orig_mod\.|model\.)*(params/|opt/target/)?")
"""PREFIXES, and those of PyTorch's wrappers (parallel, compiled, Lightning's), nested."""

_SIBLINGS = (
    ("ResMLP", re.compile(r"blocks\.\d+\.(linear_tokens|attn|ls1|gamma_1|norm1\.alpha)\b")),
    ("gMLP", re.compile(r"blocks\.\d+\.mlp_channels\.gate\b")),
)


def detect(names: Collection[str]) -> tuple[Layout, str]:
    """The layout of foreign names, and the prefix before each of the model's.

    Any prefix that all names share counts, and behind it, PREFIXES. Raises ConversionError for a
    sibling (ResMLP, gMLP) and for anything else.
    """
    for sibling, pattern in _SIBLINGS:
        if any(pattern.search(name) for name in names):
            raise ConversionError(f"These are weights of a {sibling}; only MLP-Mixer is supported.")
    if "stem.weight" in names:
        raise ConversionError("These are the weights of a native model; give its folder instead.")
    for shared in (_shared_prefix(names), ""):
        for prefix in (shared + prefix for prefix in PREFIXES):
            for layout in LAYOUTS:
                if prefix + layout.table["stem.weight"][0] in names:
                    return layout, prefix
    some = ", ".join(sorted(names)[:4]) or "none"
    raise ConversionError(
        f"These weights don't have the names of a known MLP-Mixer (found {some}); supported are "
        "the official JAX files and timm's."
    )


def is_usual(prefix: str) -> bool:
    """Whether a prefix is one that training code is known to write."""
    return _USUAL.fullmatch(prefix) is not None


def _shared_prefix(names: Collection[str]) -> str:
    """The longest prefix of all names that ends in a dot or a slash."""
    start = os.path.commonprefix(list(names))  # noqa: RUF071  # by characters, as meant
    return start[: max(start.rfind("."), start.rfind("/")) + 1]
