"""`MixerFeatures`: a model's features in scikit-learn's pipelines (extra `sklearn`)."""

# mypy: allow-subclassing-any
# scikit-learn has no annotations.

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .choices import BUILT_IN, Device, DType
from .errors import ConfigError
from .features.embed import PRE_LOGITS, Embedder, Features
from .images.inputs import ImagesInput, one_image

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise ImportError(
        "mixer_mlx.sklearn needs scikit-learn; pip install 'mixer-mlx[sklearn]'."
    ) from error


class MixerFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Images -> features of a pretrained Mixer, for a classifier or another estimator behind it.

    `X` is a sequence of images: paths, PIL images, uint8 arrays, or one array (N, H, W, C); a
    pandas Series of paths, too. `model` is what `mixer_mlx.load` takes, with or without a head, and
    `dtype` and `device` are as there. `layer` and `normalize` are those of
    `features.embed.Features`; the features of an image's tokens are averaged.

    Nothing is learnt from the images: `fit` loads the model. A pickle holds the model's name or
    path and not its weights, so it is small, goes to other processes (`n_jobs`), and needs the
    model where it is loaded.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = BUILT_IN,
        *,
        layer: str = PRE_LOGITS,
        normalize: bool = False,
        batch_size: int = 32,
        exact: bool = False,
        dtype: DType | None = None,
        device: Device | None = None,
    ) -> None:
        self.model = model
        self.layer = layer
        self.normalize = normalize
        self.batch_size = batch_size
        self.exact = exact
        self.dtype = dtype
        self.device = device

    def fit(self, X: ImagesInput, y: object = None) -> "MixerFeatures":
        """Load the model. Raises MixerError, as `mixer_mlx.load` does."""
        self._embedder = self._load()
        (self.n_features_out_,) = self._embedder.features.shape(self._embedder.info.config)
        return self

    def transform(self, X: ImagesInput) -> NDArray[np.float32]:
        """The features of each image, float32 (N, n_features_out_).

        Raises ImageError for the first image that can't be read, NotFittedError before `fit`.
        """
        check_is_fitted(self)
        if one_image(X):
            raise ConfigError("X is one image; pass a list of images, e.g. [image].")
        if self._embedder is None:  # since a pickle is without it
            self._embedder = self._load()
        return self._embedder.array(X, batch_size=self.batch_size, exact=self.exact)

    def _load(self) -> Embedder:
        from mixer_mlx import load_embedder  # the face alone knows names and foreign weights

        features = Features(self.layer, "mean", self.normalize)
        return load_embedder(self.model, features, dtype=self.dtype, device=self.device)

    @property
    def _n_features_out(self) -> int:
        """For `get_feature_names_out`."""
        return self.n_features_out_

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {**state, "_embedder": None} if "_embedder" in state else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags
