"""The sizes of a Mixer or one of its siblings, and those of the papers as data.

Sources: Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision" (arXiv 2105.01601),
Table 1, and google-research/vision_transformer for S/8, which the paper lacks; ResMLP (arXiv
2105.03404) and gMLP (arXiv 2105.08050), Table 1; pytorch-image-models for gMixer.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from .checks import check_choice, check_image_size, check_keys, check_whole, wrong
from .choices import HiddenAct, ModelType, Shuffle
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
    `layer_norm_eps` is 1e-6 in both reference implementations. `shuffle` is for experiments: the
    model puts the pixels of every image in this fixed order first, see `shuffle.pixel_order`.

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
    shuffle: Shuffle | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            check_whole(name, getattr(self, name), low, high)
        check_choice("model_type", self.model_type, ModelType)
        self._check_widths()
        self._check_image_size()
        check_choice("hidden_act", self.hidden_act, HiddenAct)
        if self.shuffle is not None:
            check_choice("shuffle", self.shuffle, Shuffle)
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
        act = "silu" if sizes["model_type"] == "gmixer" else "gelu"
        values = {"image_size": side, "hidden_act": act, **sizes, **changes}
        return cls(**values)  # type: ignore[arg-type]

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
        """Plain values for JSON; `shuffle` only if there is one."""
        values = {**dataclasses.asdict(self), "image_size": list(self.image_size)}
        return {key: value for key, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "MixerConfig":
        """The inverse of `to_dict`. Raises ConfigError for a missing or unknown key."""
        check_keys("config", {"shuffle": None, **values}, cls, all_=True)
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


def _sizes(kind: ModelType, P: int, num_blocks: int, C: int, D_S: int, D_C: int) -> Sizes:
    return {
        "model_type": kind,
        "patch_size": P,
        "num_blocks": num_blocks,
        "hidden_dim": C,
        "tokens_mlp_dim": D_S,
        "channels_mlp_dim": D_C,
    }


VARIANTS = {
    "S/32": _sizes("mlp_mixer", 32, 8, 512, 256, 2048),
    "S/16": _sizes("mlp_mixer", 16, 8, 512, 256, 2048),
    "S/8": _sizes("mlp_mixer", 8, 8, 512, 256, 2048),
    "B/32": _sizes("mlp_mixer", 32, 12, 768, 384, 3072),
    "B/16": _sizes("mlp_mixer", 16, 12, 768, 384, 3072),
    "L/32": _sizes("mlp_mixer", 32, 24, 1024, 512, 4096),
    "L/16": _sizes("mlp_mixer", 16, 24, 1024, 512, 4096),
    "H/14": _sizes("mlp_mixer", 14, 32, 1280, 640, 5120),
    "ResMLP-S12": _sizes("resmlp", 16, 12, 384, 0, 1536),
    "ResMLP-S24": _sizes("resmlp", 16, 24, 384, 0, 1536),
    "ResMLP-S36": _sizes("resmlp", 16, 36, 384, 0, 1536),
    "ResMLP-B24/8": _sizes("resmlp", 8, 24, 768, 0, 3072),
    "gMLP-Ti/16": _sizes("gmlp", 16, 30, 128, 0, 768),
    "gMLP-S/16": _sizes("gmlp", 16, 30, 256, 0, 1536),
    "gMLP-B/16": _sizes("gmlp", 16, 30, 512, 0, 3072),
    "gMixer-12": _sizes("gmixer", 16, 12, 384, 384, 1536),
    "gMixer-24": _sizes("gmixer", 16, 24, 384, 384, 1536),
}
"""Sizes by the papers' names; S/8 is a published checkpoint of the Mixer's authors."""
