"""What weights leave open, and a `config.json`, the catalogue or the user says."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Settings:
    """What is known of a model beside its weights; None or empty where nothing is.

    `image_size` is (H, W); `hidden_act` "gelu" or "gelu_tanh"; `labels` one name for each class;
    `preprocess` some of the fields of `Preprocess`; `source` provenance for `ModelInfo`.
    """

    image_size: tuple[int, int] | None = None
    hidden_act: str | None = None
    labels: tuple[str, ...] = ()
    preprocess: Mapping[str, object] = field(default_factory=dict)
    source: Mapping[str, object] = field(default_factory=dict)

    def updated(self, other: "Settings") -> "Settings":
        """These settings, with `other`'s in place of them wherever it has any."""
        return Settings(
            image_size=other.image_size or self.image_size,
            hidden_act=other.hidden_act or self.hidden_act,
            labels=other.labels or self.labels,
            preprocess={**self.preprocess, **other.preprocess},
            source={**self.source, **other.source},
        )
