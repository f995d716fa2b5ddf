"""Small models for the tests of exports."""

import mlx.core as mx

from mixer_mlx import MixerConfig, MlpMixer, ModelInfo, Preprocess


def random_model(config: MixerConfig) -> tuple[MlpMixer, ModelInfo]:
    """A model none of whose weights are zero, in float32."""
    mx.random.seed(0)
    model = MlpMixer(config)
    model.apply(lambda value: value + 0.1 * mx.random.normal(value.shape) / value.size**0.25)
    if config.num_classes:
        shape = model.head.weight.shape
        model.head.weight = mx.random.normal(shape) * config.hidden_dim**-0.5
    mx.eval(model.parameters())
    half = (0.5,) * config.in_channels
    return model, ModelInfo(config, Preprocess(config.image_size, mean=half, std=half))
