"""A trained model for images with other channels, as timm's `adapt_input_conv` does it."""

import mlx.core as mx

from mixer_mlx.images.preprocess import Preprocess

from .checks import check_whole
from .errors import ConfigError
from .model import MlpMixer
from .model_info import ModelInfo


def with_channels(model: MlpMixer, in_channels: int) -> MlpMixer:
    """A model for grey images, or images with any number of channels, from one for RGB.

    For one channel the stem's kernels are summed over RGB, so a grey image has the outputs that it
    has as RGB. For others they are repeated, R, G, B, R, ..., and scaled by 3 / in_channels. All
    other weights are shared. Raises ConfigError for a model that doesn't take 3 channels,
    and for a quantised one.
    """
    check_whole("in_channels", in_channels, 1, 1024)
    old = model.config.in_channels
    if in_channels == old:
        return model
    if old != 3:
        raise ConfigError(
            f"The model takes {old} channels; only a model for 3 can be adapted to {in_channels}."
        )
    model.require_unquantized("be adapted to other channels")
    adapted = MlpMixer(model.config.replace(in_channels=in_channels))
    adapted.update({name: part for name, part in model.parameters().items() if name != "stem"})
    weight = model.stem.weight  # (C, P, P, 3)
    if in_channels == 1:
        weight = weight.astype(mx.float32).sum(axis=-1, keepdims=True).astype(weight.dtype)
    else:
        order = mx.array([channel % 3 for channel in range(in_channels)])
        weight = weight[..., order] * (3 / in_channels)
    adapted.stem.update({"weight": weight, "bias": model.stem.bias})
    mx.eval(adapted.parameters())
    return adapted


def adapted(model: MlpMixer, info: ModelInfo, in_channels: int) -> tuple[MlpMixer, ModelInfo]:
    """`with_channels`, and what is known of the model it makes."""
    made = with_channels(model, in_channels)
    preprocess = _preprocess(info.preprocess, in_channels)
    return made, info.replace(config=made.config, preprocess=preprocess)


def _preprocess(preprocess: Preprocess, in_channels: int) -> Preprocess:
    """Mean and standard deviation for other channels: for one their mean, else repeated."""

    def adapted(values: tuple[float, ...]) -> tuple[float, ...]:
        if in_channels == 1:
            return (sum(values) / len(values),)
        return tuple(values[channel % len(values)] for channel in range(in_channels))

    return preprocess.replace(mean=adapted(preprocess.mean), std=adapted(preprocess.std))
