"""A trained Mixer for larger images, as in the paper's appendix C.

For an image K_h times as high and K_w times as wide there are K = K_h K_w times as many tokens.
They are split into K parts, each as large as the image that the model was trained on, and every
token-mixing matrix becomes block-diagonal with K copies of the trained one: S and D_S grow K-fold.
Tokens lie in raster order over the whole image, so the blocks are spread over the rows and columns
of their part.
"""

import mlx.core as mx
import numpy as np

from .config import MixerConfig
from .errors import ConfigError
from .model import MlpBlock, MlpMixer


def resize(model: MlpMixer, image_size: tuple[int, int]) -> MlpMixer:
    """A new model for images of (height, width), with the trained model's weights.

    For an image tiled K_h by K_w, its logits and the tokens of each part equal those of the image.
    Weights keep their dtype. Raises ConfigError unless both sides are whole
    multiples of the trained ones.
    """
    old = model.config
    ratio = _ratio(old, image_size)
    config = old.replace(
        image_size=image_size, tokens_mlp_dim=old.tokens_mlp_dim * ratio[0] * ratio[1]
    )
    resized = MlpMixer(config)
    resized.update(model.parameters())
    order = _parts(old.grid_size, ratio)
    for block, trained in zip(resized.blocks, model.blocks, strict=True):
        block.token_mixing.update(_token_mixing(trained.token_mixing, order))
    mx.eval(resized.parameters())
    return resized


def _ratio(config: MixerConfig, image_size: tuple[int, int]) -> tuple[int, int]:
    height, width = config.image_size
    if image_size[0] < 1 or image_size[1] < 1 or image_size[0] % height or image_size[1] % width:
        possible = ", ".join(f"{height * k}x{width * k}" for k in (2, 3, 4))
        raise ConfigError(
            f"A model trained on {height}x{width} can't take images of {image_size[0]}x"
            f"{image_size[1]}; both sides must be whole multiples, e.g. {possible}."
        )
    return image_size[0] // height, image_size[1] // width


def _parts(grid: tuple[int, int], ratio: tuple[int, int]) -> np.ndarray:
    """(K, S): the index in the large image, in raster order, of token s of part k."""
    (h, w), (kh, kw) = grid, ratio
    tokens = np.arange(kh * h * kw * w).reshape(kh, h, kw, w)
    return tokens.transpose(0, 2, 1, 3).reshape(kh * kw, h * w)


def _token_mixing(trained: MlpBlock, parts: np.ndarray) -> dict[str, dict[str, mx.array]]:
    """The parameters of a block-diagonal token-mixing MLP."""
    K, S = parts.shape
    D = trained.fc1.weight.shape[0]
    hidden = np.arange(K * D).reshape(K, D)  # hidden units stay part by part
    weight1, bias1, weight2, bias2 = (
        np.array(value.astype(mx.float32))
        for value in (trained.fc1.weight, trained.fc1.bias, trained.fc2.weight, trained.fc2.bias)
    )
    large1 = np.zeros((K * D, K * S), np.float32)
    large2 = np.zeros((K * S, K * D), np.float32)
    bias = np.zeros(K * S, np.float32)
    for tokens, units in zip(parts, hidden, strict=True):
        large1[np.ix_(units, tokens)] = weight1
        large2[np.ix_(tokens, units)] = weight2
        bias[tokens] = bias2
    dtype = trained.fc1.weight.dtype
    return {
        "fc1": {
            "weight": mx.array(large1).astype(dtype),
            "bias": mx.array(np.tile(bias1, K)).astype(dtype),
        },
        "fc2": {"weight": mx.array(large2).astype(dtype), "bias": mx.array(bias).astype(dtype)},
    }
