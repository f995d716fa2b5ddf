"""A model as other functions: of plain MLX operations, and of few kernels for a GPU."""

from collections.abc import Callable

import mlx.core as mx

from mixer_mlx.ops.plain import plain_operations

from .model import MlpMixer


def inference_form(model: MlpMixer) -> Callable[[mx.array], mx.array]:
    """Normalised images (N, H, W, in) -> logits: the numbers of `model(x)`, up to rounding.

    Its operations have MLX's own derivatives, so unlike the model itself it can be exported by
    `mx.export_function` and compiled with `shapeless=True`, for batches of any size. (Not a gMLP or
    gMixer, whose halves MLX can't split for an unknown size: those only for one size, without
    `shapeless`.) Weights are those of the moment of export or compilation. For training use the
    model: it is faster.
    """
    mx.eval(model.parameters())  # else an export would repeat how they were made

    def run(x: mx.array) -> mx.array:
        with plain_operations():
            return model(x)

    return run


def lean_form(model: MlpMixer, x: mx.array) -> mx.array:
    """Normalised images (N, H, W, in) -> logits: those of `model(x)`, up to rounding.

    On a GPU a Mixer's block has one kernel less, see `MixerBlock.lean`.
    """
    if model.config.model_type != "mlp_mixer":
        return model(x)
    x = model.embed(x)
    for block in model.blocks:
        x = block.lean(x)
    return model.classify(model.pool(x))
