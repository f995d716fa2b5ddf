"""What a model folder contains besides the weights: the content of its `config.json`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mixer_mlx.images.preprocess import Preprocess

from .calibration import Calibration
from .checks import check_choice
from .choices import ModelType
from .config import MixerConfig
from .errors import ConfigError
from .labels import canonical
from .quantization import Quantization


@dataclass(frozen=True)
class ModelInfo:
    """What a native folder contains besides the weights.

    `labels` is empty or has one name per class, in NFC. `source` is free-form provenance: name,
    layout, sha256, revision, licence. `quantization` is how the weights are quantised, or None.
    `calibration` is the temperature that probabilities need.
    """

    config: MixerConfig
    preprocess: Preprocess
    labels: tuple[str, ...] = ()
    source: Mapping[str, object] = field(default_factory=dict)
    quantization: Quantization | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(map(canonical, self.labels)))
        if self.labels and len(self.labels) != self.config.num_classes:
            raise ConfigError(
                f"There are {len(self.labels)} labels for {self.config.num_classes} classes; "
                "give one per class."
            )
        if self.preprocess.image_size != self.config.image_size:
            raise ConfigError(
                f"The model expects images of {_by(self.config.image_size)} and the preprocessing "
                f"makes {_by(self.preprocess.image_size)}; make them equal."
            )

    @property
    def name(self) -> str:
        """The published name or the address, else the paper's name for the sizes, else MlpMixer."""
        known = self.source.get("name") or self.source.get("address")
        return str(known or self.config.variant_name or "MlpMixer")

    @property
    def origin(self) -> object:
        """What a quantised model was made from, as its `source` says, or None."""
        return self.source.get("quantized_from")

    def replace(self, **changes: Any) -> "ModelInfo":
        """A copy with other values, checked again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, object]:
        """The content of `config.json`."""
        return {
            **self.config.to_dict(),
            "preprocess": self.preprocess.to_dict(),
            "id2label": {str(index): label for index, label in enumerate(self.labels)},
            "source": dict(self.source),
            **({"quantization": self.quantization.to_dict()} if self.quantization else {}),
            **({"calibration": self.calibration.to_dict()} if self.calibration else {}),
        }

    @property
    def temperature(self) -> float:
        """What the head's outputs are divided by; 1 without calibration."""
        return self.calibration.temperature if self.calibration else 1.0

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "ModelInfo":
        """The inverse of `to_dict`. Raises ConfigError for a missing, unknown or wrong key."""
        rest = dict(values)
        check_choice("model_type", rest.get("model_type"), ModelType)
        preprocess, id2label, source = (
            _table(rest, key) for key in ("preprocess", "id2label", "source")
        )
        quantized = _table(rest, "quantization") if "quantization" in rest else None
        calibration = rest.pop("calibration", None)
        return cls(
            config=MixerConfig.from_dict(rest),
            preprocess=Preprocess.from_dict(preprocess),
            labels=_labels(id2label),
            source=source,
            quantization=None if quantized is None else Quantization.from_dict(quantized),
            calibration=None if calibration is None else Calibration.from_dict(calibration),
        )


def _table(values: dict[str, object], key: str) -> dict[str, object]:
    table = values.pop(key, None)
    if not isinstance(table, dict):
        raise ConfigError(f"The config has no object {key!r}.")
    return table


def _labels(table: Mapping[str, object]) -> tuple[str, ...]:
    labels = tuple(table.get(str(index)) for index in range(len(table)))
    if not all(isinstance(label, str) for label in labels):
        raise ConfigError('id2label must map "0", "1", ... to names, without gaps.')
    return labels  # type: ignore[return-value]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
