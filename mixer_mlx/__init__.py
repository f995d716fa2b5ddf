"""MLP-Mixer on MLX: `load` a model, call it with an image.

    import mixer_mlx
    classifier = mixer_mlx.load("cifar10")
    classifier("cat.png")[0]    # Prediction(index=3, label='cat', probability=...)

`find_images` finds images for `Classifier.predict`. `fit` trains a `MlpMixer` by a `Recipe` and
yields events, and `evaluate` measures it. Every error is a `MixerError`. The guides and the promise
of what stays as it is are in docs/; everything public is in `__all__` here, or documented there.

Names are imported when they are first used, so importing the package is fast.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `as` exports a name to type checkers
    from mixer_mlx.convert import load as load
    from mixer_mlx.convert import load_embedder as load_embedder

    from .analysis.evaluate import Metrics as Metrics
    from .analysis.evaluate import evaluate as evaluate
    from .catalog import CATALOG as CATALOG
    from .catalog import CatalogEntry as CatalogEntry
    from .checkpoint import save as save
    from .classify import Classifier as Classifier
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
    from .features.embed import Embedder as Embedder
    from .features.embed import Embedding as Embedding
    from .features.embed import Features as Features
    from .images.find import find_images as find_images
    from .images.inputs import LazyImage as LazyImage
    from .images.preprocess import Preprocess as Preprocess
    from .model import Intermediates as Intermediates
    from .model import MlpMixer as MlpMixer
    from .model_info import ModelInfo as ModelInfo
    from .results import Prediction as Prediction
    from .results import Result as Result
    from .results import Results as Results
    from .training.loop import Done as Done
    from .training.loop import EpochDone as EpochDone
    from .training.loop import Event as Event
    from .training.loop import Saved as Saved
    from .training.loop import StepDone as StepDone
    from .training.loop import fit as fit
    from .training.recipe import Recipe as Recipe
    from .training.recipes import RECIPES as RECIPES
    from .training.state import State as State

__version__ = "0.2.0"

_HOMES = {
    "analysis.evaluate": "Metrics evaluate",
    "catalog": "CATALOG CatalogEntry",
    "checkpoint": "save",
    "classify": "Classifier",
    "config": "VARIANTS MixerConfig",
    "convert": "load load_embedder",
    "errors": "BackendError CheckpointError ConfigError ConversionError ImageError MixerError "
    "SourceError TrainingError",
    "features.embed": "Embedder Embedding Features",
    "images.inputs": "LazyImage",
    "images.find": "find_images",
    "images.preprocess": "Preprocess",
    "model": "Intermediates MlpMixer",
    "model_info": "ModelInfo",
    "results": "Prediction Result Results",
    "training.loop": "Done EpochDone Event Saved StepDone fit",
    "training.recipe": "Recipe",
    "training.recipes": "RECIPES",
    "training.state": "State",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)


if not TYPE_CHECKING:  # or a misspelt name would pass

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value  # so that this isn't called for it again
        return value

    def __dir__() -> list[str]:
        return __all__
