"""The sizes of a Mixer, and the paper's Table 1 as data.

Sources: Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision" (arXiv 2105.01601),
Table 1, and google-research/vision_transformer for S/8, which the paper lacks.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from .checks import check_choice, check_image_size, check_keys, check_whole
from .choices import HiddenAct
from .errors import ConfigError

MAX_PARAMETERS = 4_000_000_000
"""Larger configs are refused before memory is allocated; the paper's largest has 0.43e9."""

_BOUNDS = {
    "patch_size": (1, 1024),
    "in_channels": (1, 1024),
    "num_blocks": (1, 1024),
    "hidden_dim": (1, 65_536),
    "tokens_mlp_dim": (1, 1_048_576),
    "channels_mlp_dim": (1, 262_144),
    "num_classes": (0, 1_000_000),
}


@dataclass(frozen=True, kw_only=True)
class MixerConfig:
    """Everything that determines a Mixer's shape and arithmetic.

    `image_size` is (height, width) in pixels; `tokens_mlp_dim` and `channels_mlp_dim` are the
    paper's D_S and D_C, `hidden_dim` its C. `num_classes` 0 means no head: the model returns
    pre-logits. `hidden_act` is "gelu" (erf, as in timm) or "gelu_tanh" (as in Flax), and
    depends on the checkpoint. `layer_norm_eps` is 1e-6 in both reference implementations.

    Raises ConfigError for a value of the wrong type or out of range, and unless the
    patch size divides both sides of the image.
    """

    image_size: tuple[int, int]
    patch_size: int
    num_blocks: int
    hidden_dim: int
    tokens_mlp_dim: int
    channels_mlp_dim: int
    in_channels: int = 3
    num_classes: int = 1000
    hidden_act: HiddenAct = "gelu"
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            check_whole(name, getattr(self, name), low, high)
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
        """The config of a variant of the paper: "S/32", "B/16", ...; also spelled "b16" or "B_16".

        `tokens_mlp_dim` is the paper's, whatever the image size. `changes` replace other fields.
        Raises ConfigError for an unknown name.
        """
        key = name.upper().replace("_", "").replace("/", "")
        sizes = {known.replace("/", ""): value for known, value in VARIANTS.items()}.get(key)
        if sizes is None:
            raise ConfigError(f"Unknown variant {name!r}; choose one of {', '.join(VARIANTS)}.")
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
    def num_parameters(self) -> int:
        """Trainable parameters, head included."""
        S, C = self.num_tokens, self.hidden_dim
        block = 4 * C + _mlp_parameters(S, self.tokens_mlp_dim)
        block += _mlp_parameters(C, self.channels_mlp_dim)
        head = (C + 1) * self.num_classes
        return (self.patch_dim + 1) * C + self.num_blocks * block + 2 * C + head

    @property
    def num_macs(self) -> int:
        """Multiply-accumulates of the matrix products per image."""
        S, C = self.num_tokens, self.hidden_dim
        block = 2 * S * C * (self.tokens_mlp_dim + self.channels_mlp_dim)
        return S * self.patch_dim * C + self.num_blocks * block + C * self.num_classes

    @property
    def variant_name(self) -> str | None:
        """The paper's name for these sizes ("B/16"), or None."""
        for name, sizes in VARIANTS.items():
            if all(getattr(self, field) == value for field, value in sizes.items()):
                return name
        return None

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


def _mlp_parameters(dim: int, hidden: int) -> int:
    return 2 * dim * hidden + dim + hidden


def _sizes(variant: str) -> dict[str, int]:
    scale, patch_size = variant.split("/")
    num_blocks, hidden_dim, channels_mlp_dim, tokens_mlp_dim = {
        "S": (8, 512, 2048, 256),
        "B": (12, 768, 3072, 384),
        "L": (24, 1024, 4096, 512),
        "H": (32, 1280, 5120, 640),
    }[scale]
    return {
        "patch_size": int(patch_size),
        "num_blocks": num_blocks,
        "hidden_dim": hidden_dim,
        "tokens_mlp_dim": tokens_mlp_dim,
        "channels_mlp_dim": channels_mlp_dim,
    }


_VARIANTS = ("S/32", "S/16", "S/8", "B/32", "B/16", "L/32", "L/16", "H/14")
VARIANTS = {name: _sizes(name) for name in _VARIANTS}
"""Sizes by the paper's names, smallest first; S/8 is a published checkpoint of the authors."""
