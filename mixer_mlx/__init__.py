"""MLP-Mixer on MLX: `load` a model, call it with an image.

    import mixer_mlx
    cats = mixer_mlx.load("cifar10")
    cats("cat.png")[0]          # Prediction(index=3, label='cat', probability=...)

Names are handed on when they are first used, so that importing the package costs little. The one
thing done at import is `openblas.prepare`: on Linux it must come before MLX is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .runtime import openblas

if TYPE_CHECKING:
    from mixer_mlx.convert import load
    from mixer_mlx.images.preprocess import Preprocess

    from .catalog import CATALOG, CatalogEntry
    from .checkpoint import ModelInfo, save
    from .classify import Classifier, Prediction, Result
    from .config import VARIANTS, MixerConfig
    from .errors import (
        BackendError,
        CheckpointError,
        ConfigError,
        ConversionError,
        ImageError,
        MixerError,
        SourceError,
        TrainingError,
    )
    from .model import Intermediates, MlpMixer

__version__ = "0.1.0"

_HOMES = {
    "catalog": ("CATALOG", "CatalogEntry"),
    "checkpoint": ("ModelInfo", "save"),
    "classify": ("Classifier", "Prediction", "Result"),
    "config": ("VARIANTS", "MixerConfig"),
    "convert": ("load",),
    "errors": (
        "BackendError",
        "CheckpointError",
        "ConfigError",
        "ConversionError",
        "ImageError",
        "MixerError",
        "SourceError",
        "TrainingError",
    ),
    "images.preprocess": ("Preprocess",),
    "model": ("Intermediates", "MlpMixer"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CATALOG",
    "VARIANTS",
    "BackendError",
    "CatalogEntry",
    "CheckpointError",
    "Classifier",
    "ConfigError",
    "ConversionError",
    "ImageError",
    "Intermediates",
    "MixerConfig",
    "MixerError",
    "MlpMixer",
    "ModelInfo",
    "Prediction",
    "Preprocess",
    "Result",
    "SourceError",
    "TrainingError",
    "load",
    "save",
]

openblas.prepare()


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
