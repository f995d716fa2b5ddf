"""What weights leave open, and how the `config.json` of a timm repository fills it in.

The keys are those that pytorch-image-models writes (`timm/models/_hub.py`) and reads
(`timm/data/config.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from mixer_mlx.choices import HiddenAct, ModelType
from mixer_mlx.errors import ConfigError, ConversionError


@dataclass(frozen=True)
class Settings:
    """What is known of a model besides its weights; None or empty if unknown.

    `image_size` is (H, W); `hidden_act` a `choices.HiddenAct`; `model_type` a `choices.ModelType`,
    which the weights must have; `labels` one name for each class; `preprocess` some of the fields
    of `Preprocess`; `source` provenance for `ModelInfo`.
    """

    image_size: tuple[int, int] | None = None
    hidden_act: HiddenAct | None = None
    model_type: ModelType | None = None
    labels: tuple[str, ...] = ()
    preprocess: Mapping[str, object] = field(default_factory=dict)
    source: Mapping[str, object] = field(default_factory=dict)

    def updated(self, other: "Settings") -> "Settings":
        """These settings, overridden by those that `other` has."""
        return Settings(
            image_size=other.image_size or self.image_size,
            hidden_act=other.hidden_act or self.hidden_act,
            model_type=other.model_type or self.model_type,
            labels=other.labels or self.labels,
            preprocess={**self.preprocess, **other.preprocess},
            source={**self.source, **other.source},
        )


_RESIZE_MODES = {"center": "shorter", "squash": "squash"}
_INTERPOLATIONS = ("bicubic", "bilinear")
_ACTIVATIONS: dict[str, HiddenAct] = {act: act for act in get_args(HiddenAct)}
_FAMILIES: dict[str, ModelType] = {kind.removeprefix("mlp_"): kind for kind in get_args(ModelType)}
"""By the beginning of timm's `architecture`."""


def read_settings(config: Mapping[str, object]) -> Settings:
    """Read the content of a timm `config.json`; an empty one says nothing.

    Raises ConversionError for what the model can't have, ConfigError for values of a wrong kind.
    """
    if not config:
        return Settings()
    family = _FAMILIES.get(str(config.get("architecture", "")).split("_")[0])
    cfg = {**config, **_table(config, "pretrained_cfg")}
    size = _image_size(cfg)
    return Settings(
        image_size=size,
        hidden_act=_hidden_act({**_table(config, "model_args"), **config}),
        model_type=family,
        labels=_labels(cfg),
        preprocess=_preprocess(cfg),
        source={
            key: cfg[name]
            for key, name in (("architecture", "architecture"), ("license", "license"))
            if isinstance(cfg.get(name), str)
        },
    )


def _table(config: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"config.json: {key} must be a table.")
    return value


def _image_size(cfg: Mapping[str, object]) -> tuple[int, int] | None:
    size = cfg.get("input_size")
    if size is None:
        return None
    if not isinstance(size, list) or len(size) != 3 or not all(type(side) is int for side in size):
        raise ConfigError(f"config.json: input_size must be [channels, H, W], not {size!r}.")
    return size[1], size[2]


def _hidden_act(config: Mapping[str, object]) -> HiddenAct | None:
    """Only what differs from timm's own, which is the layout's; ours is in `hidden_act`."""
    if not {"hidden_act", "act_layer"} & config.keys():
        return None
    name = config.get("hidden_act", config.get("act_layer"))
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ConversionError(
            f"The model has activation {name!r}; supported are {' and '.join(_ACTIVATIONS)}."
        )
    return _ACTIVATIONS[name]


def _preprocess(cfg: Mapping[str, object]) -> dict[str, object]:
    known: dict[str, object] = {
        key: cfg[key] for key in ("crop_pct", "mean", "std") if cfg.get(key) is not None
    }
    known["resize_mode"] = _known("crop_mode", cfg.get("crop_mode", "center"), _RESIZE_MODES)
    if (interpolation := cfg.get("interpolation")) is not None:
        names = {name: name for name in _INTERPOLATIONS}
        known["interpolation"] = _known("interpolation", interpolation, names)
    return known


def _known(key: str, value: object, names: Mapping[str, str]) -> str:
    if not isinstance(value, str) or value not in names:
        raise ConversionError(f"config.json has {key} {value!r}; supported are {', '.join(names)}.")
    return names[value]


def _labels(cfg: Mapping[str, object]) -> tuple[str, ...]:
    key = "label_names" if cfg.get("label_names") else "labels"  # timm's older name for it
    names = cfg.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"config.json: {key} must be a list of names.")
    descriptions = cfg.get("label_descriptions") or {}
    if not isinstance(descriptions, dict):
        raise ConfigError("config.json: label_descriptions must be a table.")
    return tuple(str(descriptions.get(name, name)) for name in names)
