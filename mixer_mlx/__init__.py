"""MLP-Mixer on MLX: `load` a model, call it with an image.

    import mixer_mlx
    cats = mixer_mlx.load("cifar10")
    cats("cat.png")[0]          # Prediction(index=3, label='cat', probability=...)

Names are imported when they are first used, so importing the package is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `as` exports a name to type checkers
    from mixer_mlx.convert import load as load
    from mixer_mlx.images.preprocess import Preprocess as Preprocess

    from .catalog import CATALOG as CATALOG
    from .catalog import CatalogEntry as CatalogEntry
    from .checkpoint import ModelInfo as ModelInfo
    from .checkpoint import save as save
    from .classify import Classifier as Classifier
    from .classify import Prediction as Prediction
    from .classify import Result as Result
    from .config import VARIANTS as VARIANTS
    from .config import MixerConfig as MixerConfig
    from .errors import BackendError as BackendError
    from .errors import CheckpointError as CheckpointError
    from .errors import ConfigError as ConfigError
    from .errors import ConversionError as ConversionError
    from .errors import ImageError as ImageError
    from .errors import MixerError as MixerError
    from .errors import SourceError as SourceError
    from .errors import TrainingError as TrainingError
    from .model import Intermediates as Intermediates
    from .model import MlpMixer as MlpMixer

__version__ = "0.1.0"

_HOMES = {
    "catalog": "CATALOG CatalogEntry",
    "checkpoint": "ModelInfo save",
    "classify": "Classifier Prediction Result",
    "config": "VARIANTS MixerConfig",
    "convert": "load",
    "errors": "BackendError CheckpointError ConfigError ConversionError ImageError MixerError "
    "SourceError TrainingError",
    "images.preprocess": "Preprocess",
    "model": "Intermediates MlpMixer",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
