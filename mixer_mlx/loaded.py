"""A model with what is known of it, on a device: common to `Classifier` and `Embedder`."""

from typing import Any

import mlx.core as mx

from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.runtime import backend, worker

from .checkpoint import check_agreement
from .config import MixerConfig
from .model import MlpMixer
from .model_info import ModelInfo


class LoadedModel:
    """A model, its info and its device, none of which can be replaced afterwards.

    Weights may change in place, e.g. by `model.update` or training. Can be pickled and copied; the
    device is stored by its name. Raises CheckpointError if the model doesn't fit the info.
    """

    def __init__(self, model: MlpMixer, info: ModelInfo, device: mx.Device | None = None):
        check_agreement(model, info)
        self._model, self._info = model, info
        self._device = device or mx.default_device()

    @property
    def model(self) -> MlpMixer:
        """The network: normalised float images (N, H, W, in) -> logits, or pre-logits."""
        return self._model

    @property
    def info(self) -> ModelInfo:
        """The config, preprocessing, labels and source of the model."""
        return self._info

    @property
    def device(self) -> mx.Device:
        """Where it computes."""
        return self._device

    @property
    def config(self) -> MixerConfig:
        """The sizes of the model."""
        return self._info.config

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing of the model's input."""
        return self._info.preprocess

    def _options(self) -> dict[str, Any]:
        """Further arguments of the constructor, for a copy."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        name = self._device.type.name
        with worker.busy:
            mx.eval(self._model.parameters())
        return {"model": self._model, "info": self._info, "device": name, **self._options()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**{**state, "device": backend.device(state["device"])})  # type: ignore[misc]
