"""The sizes of a Mixer or one of its siblings, and those of the papers as data.

Sources: Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision" (arXiv 2105.01601),
Table 1, and google-research/vision_transformer for S/8, which the paper lacks; ResMLP (arXiv
2105.03404) and gMLP (arXiv 2105.08050), Table 1; pytorch-image-models for gMixer.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from .checks import check_choice, check_image_size, check_keys, check_whole, wrong
from .choices import HiddenAct, ModelType
from .errors import ConfigError

MAX_PARAMETERS = 4_000_000_000
"""Larger configs are refused before memory is allocated; the paper's largest has 0.43e9."""

FAMILIES: dict[ModelType, str] = {
    "mlp_mixer": "MLP-Mixer",
    "resmlp": "ResMLP",
    "gmlp": "gMLP",
    "gmixer": "gMixer",
}
"""Names of the values of `model_type`."""

_TOKENS = (1, 1_048_576)
_BOUNDS = {
    "patch_size": (1, 1024),
    "in_channels": (1, 1024),
    "num_blocks": (1, 1024),
    "hidden_dim": (1, 65_536),
    "tokens_mlp_dim": (0, _TOKENS[1]),
    "channels_mlp_dim": (1, 262_144),
    "num_classes": (0, 1_000_000),
}


@dataclass(frozen=True, kw_only=True)
class MixerConfig:
    """Everything that determines a model's shape and arithmetic.

    `model_type`, one of `choices.ModelType`, chooses the block: the Mixer's or a sibling's.
    `image_size` is (height, width) in pixels; `tokens_mlp_dim` and `channels_mlp_dim` are the
    paper's D_S and D_C, `hidden_dim` its C. In ResMLP and gMLP, which have no MLP over tokens,
    `tokens_mlp_dim` is 0. The width of a gated hidden layer (gMLP, gMixer) counts both halves.
    `num_classes` 0 means no head: the model returns pre-logits. `hidden_act` is "gelu" (erf, as in
    timm), "gelu_tanh" (as in Flax) or "silu" (gMixer), and depends on the checkpoint.
    `layer_norm_eps` is 1e-6 in both reference implementations.

    Raises ConfigError for a value of the wrong type or out of range, and unless the
    patch size divides both sides of the image.
    """

    model_type: ModelType = "mlp_mixer"
    image_size: tuple[int, int]
    patch_size: int
    num_blocks: int
    hidden_dim: int
    tokens_mlp_dim: int = 0
    channels_mlp_dim: int
    in_channels: int = 3
    num_classes: int = 1000
    hidden_act: HiddenAct = "gelu"
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            check_whole(name, getattr(self, name), low, high)
        check_choice("model_type", self.model_type, ModelType)
        self._check_widths()
        self._check_image_size()
        check_choice("hidden_act", self.hidden_act, HiddenAct)
        eps = self.layer_norm_eps
        if not isinstance(eps, float) or not 0 < eps < 1:
            raise ConfigError(f"layer_norm_eps is {eps!r}; it must be a number between 0 and 1.")
        if self.num_parameters > MAX_PARAMETERS:
            raise ConfigError(
                f"This config has {self.num_parameters:,} parameters; use at most "
                f"{MAX_PARAMETERS:,}."
            )

    def _check_widths(self) -> None:
        """Which families have an MLP over tokens, and which split a hidden layer into halves."""
        kind = self.model_type
        if kind in ("mlp_mixer", "gmixer"):
            check_whole("tokens_mlp_dim", self.tokens_mlp_dim, *_TOKENS)
        elif self.tokens_mlp_dim:
            expected = f"0, because {FAMILIES[kind]} has no MLP over tokens"
            raise wrong("tokens_mlp_dim", self.tokens_mlp_dim, expected)
        for name in ("tokens_mlp_dim", "channels_mlp_dim") if kind in ("gmlp", "gmixer") else ():
            if (width := getattr(self, name)) % 2:
                raise wrong(name, width, f"even, because {FAMILIES[kind]} splits it into halves")

    def _check_image_size(self) -> None:
        size = self.image_size
        check_image_size("image_size", size)
        object.__setattr__(self, "image_size", tuple(size))
        if any(side % self.patch_size for side in size):
            raise ConfigError(
                f"An image of {size[0]}x{size[1]} can't be cut into patches of {self.patch_size}x"
                f"{self.patch_size}; both sides must be multiples of {self.patch_size}."
            )

    @classmethod
    def variant(
        cls, name: str, *, image_size: int | tuple[int, int] = 224, **changes: object
    ) -> "MixerConfig":
        """The config of a variant: "S/32", "B/16", "ResMLP-S24", ...; also spelled "b16" or "B_16".

        `tokens_mlp_dim` is the paper's, whatever the image size. `changes` replace other fields.
        Raises ConfigError for an unknown name.
        """
        if (known := find_variant(name)) is None:
            raise ConfigError(f"Unknown variant {name!r}; choose one of {', '.join(VARIANTS)}.")
        sizes = VARIANTS[known]
        side = (image_size, image_size) if isinstance(image_size, int) else image_size
        return cls(**{"image_size": side, **sizes, **changes})  # type: ignore[arg-type]

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches per column and per row."""
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Patches per image, the paper's S."""
        return math.prod(self.grid_size)

    @property
    def patch_dim(self) -> int:
        """Numbers per patch: P * P * in_channels."""
        return self.patch_size**2 * self.in_channels

    @property
    def linear_maps(self) -> list[tuple[int, int, int]]:
        """A block's linear maps: (inputs, outputs, vectors that it is applied to per image)."""
        S, C = self.num_tokens, self.hidden_dim
        D_S, D_C = self.tokens_mlp_dim, self.channels_mlp_dim
        return {
            "mlp_mixer": [(S, D_S, C), (D_S, S, C), (C, D_C, S), (D_C, C, S)],
            "resmlp": [(S, S, C), (C, D_C, S), (D_C, C, S)],
            "gmlp": [(C, D_C, S), (S, S, D_C // 2), (D_C // 2, C, S)],
            "gmixer": [(S, D_S, C), (D_S // 2, S, C), (C, D_C, S), (D_C // 2, C, S)],
        }[self.model_type]

    @property
    def num_parameters(self) -> int:
        """Trainable parameters, head included."""
        C, D_C = self.hidden_dim, self.channels_mlp_dim
        scales = {"mlp_mixer": 4 * C, "resmlp": 6 * C, "gmlp": 2 * C + D_C, "gmixer": 4 * C}
        block = scales[self.model_type]  # of norms, and ResMLP's LayerScale
        block += sum((inputs + 1) * outputs for inputs, outputs, _ in self.linear_maps)
        head = (C + 1) * self.num_classes
        return (self.patch_dim + 1) * C + self.num_blocks * block + 2 * C + head

    @property
    def num_macs(self) -> int:
        """Multiply-accumulates of the matrix products per image."""
        C = self.hidden_dim
        block = sum(inputs * outputs * vectors for inputs, outputs, vectors in self.linear_maps)
        stem = self.num_tokens * self.patch_dim * C
        return stem + self.num_blocks * block + C * self.num_classes

    @property
    def variant_name(self) -> str | None:
        """The papers' name for these sizes ("B/16"), or None."""
        for name, sizes in VARIANTS.items():
            if all(getattr(self, field) == value for field, value in sizes.items()):
                return name
        return None

    @property
    def title(self) -> str:
        """The variant's name, or the family's: "B/16", "ResMLP-S24", "gMLP"."""
        return self.variant_name or FAMILIES[self.model_type]

    def replace(self, **changes: object) -> "MixerConfig":
        """A copy with other values, checked again."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "image_size": list(self.image_size)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "MixerConfig":
        """The inverse of `to_dict`. Raises ConfigError for a missing or unknown key."""
        check_keys("config", values, cls, all_=True)
        return cls(**values)  # type: ignore[arg-type]


def find_variant(name: str) -> str | None:
    """The variant that `name` spells, as VARIANTS has it, or None."""
    return {_plain(known): known for known in VARIANTS}.get(_plain(name))


def _plain(variant: str) -> str:
    return variant.upper().translate(dict.fromkeys(map(ord, "_/-")))


class Sizes(TypedDict):
    """The fields of MixerConfig that are a variant's."""

    model_type: ModelType
    patch_size: int
    num_blocks: int
    hidden_dim: int
    tokens_mlp_dim: int
    channels_mlp_dim: int
    hidden_act: NotRequired[HiddenAct]


def _mixer(scale: str, patch_size: int) -> Sizes:
    num_blocks, hidden_dim, channels_mlp_dim, tokens_mlp_dim = {
        "S": (8, 512, 2048, 256),
        "B": (12, 768, 3072, 384),
        "L": (24, 1024, 4096, 512),
        "H": (32, 1280, 5120, 640),
    }[scale]
    return {
        "model_type": "mlp_mixer",
        "patch_size": patch_size,
        "num_blocks": num_blocks,
        "hidden_dim": hidden_dim,
        "tokens_mlp_dim": tokens_mlp_dim,
        "channels_mlp_dim": channels_mlp_dim,
    }


def _sibling(
    model_type: ModelType, num_blocks: int, hidden_dim: int, patch_size: int = 16
) -> Sizes:
    return {
        "model_type": model_type,
        "patch_size": patch_size,
        "num_blocks": num_blocks,
        "hidden_dim": hidden_dim,
        "tokens_mlp_dim": hidden_dim if model_type == "gmixer" else 0,
        "channels_mlp_dim": (6 if model_type == "gmlp" else 4) * hidden_dim,
        "hidden_act": "silu" if model_type == "gmixer" else "gelu",
    }


VARIANTS = {
    "S/32": _mixer("S", 32),
    "S/16": _mixer("S", 16),
    "S/8": _mixer("S", 8),
    "B/32": _mixer("B", 32),
    "B/16": _mixer("B", 16),
    "L/32": _mixer("L", 32),
    "L/16": _mixer("L", 16),
    "H/14": _mixer("H", 14),
    "ResMLP-S12": _sibling("resmlp", 12, 384),
    "ResMLP-S24": _sibling("resmlp", 24, 384),
    "ResMLP-S36": _sibling("resmlp", 36, 384),
    "ResMLP-B24/8": _sibling("resmlp", 24, 768, 8),
    "gMLP-Ti/16": _sibling("gmlp", 30, 128),
    "gMLP-S/16": _sibling("gmlp", 30, 256),
    "gMLP-B/16": _sibling("gmlp", 30, 512),
    "gMixer-12": _sibling("gmixer", 12, 384),
    "gMixer-24": _sibling("gmixer", 24, 384),
}
"""Sizes by the papers' names; S/8 is a published checkpoint of the Mixer's authors."""
