"""A trained model for larger images, as in the Mixer's paper, appendix C.

For an image K_h times as high and K_w times as wide there are K = K_h K_w times as many tokens.
They are split into K parts, each as large as the image that the model was trained on, and every
token-mixing matrix becomes block-diagonal with K copies of the trained one: S and D_S grow K-fold.
Tokens lie in raster order over the whole image, so the blocks are spread over the rows and columns
of their part. The same holds for the siblings' maps over tokens.
"""

import mlx.core as mx
from mlx.utils import tree_flatten

from .config import MixerConfig
from .errors import ConfigError
from .model import MlpMixer


def resize(model: MlpMixer, image_size: tuple[int, int]) -> MlpMixer:
    """A new model for images of (height, width), with the trained model's weights.

    For an image tiled K_h by K_w, its logits and the tokens of each part equal those of the image.
    Weights keep their dtype. Raises ConfigError unless both sides are whole
    multiples of the trained ones, and for a quantised model.
    """
    model.require_unquantized("be resized")
    old = model.config
    if old.shuffle:
        raise ConfigError(
            "The model sees images in a shuffled order, which a larger image doesn't have; train "
            "one without `shuffle`."
        )
    ratio = _ratio(old, image_size)
    K = ratio[0] * ratio[1]
    config = old.replace(image_size=image_size, tokens_mlp_dim=K * old.tokens_mlp_dim)
    resized = MlpMixer(config)
    trained: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    for path, (rows, columns) in _token_maps(old, _parts(old.grid_size, ratio)).items():
        for i in range(old.num_blocks):
            name = f"blocks.{i}.{path}"
            weight, bias = trained[f"{name}.weight"], trained[f"{name}.bias"]
            trained[f"{name}.weight"] = _block_diagonal(weight, rows, columns)
            trained[f"{name}.bias"] = mx.tile(bias, K)[mx.argsort(rows.flatten())]
    resized.load_weights(list(trained.items()), strict=True)
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


def _parts(grid: tuple[int, int], ratio: tuple[int, int]) -> mx.array:
    """(K, S): the index in the large image, in raster order, of token s of part k."""
    (h, w), (kh, kw) = grid, ratio
    tokens = mx.arange(kh * h * kw * w).reshape(kh, h, kw, w)
    return tokens.transpose(0, 2, 1, 3).reshape(kh * kw, h * w)


def _token_maps(config: MixerConfig, parts: mx.array) -> dict[str, tuple[mx.array, mx.array]]:
    """A block's linear maps over tokens -> the rows and columns of each part's copy, (K, ...)."""
    K, D = len(parts), config.tokens_mlp_dim
    hidden = mx.arange(K * D).reshape(K, D)  # hidden units stay part by part
    half = mx.arange(K * (D // 2)).reshape(K, D // 2)
    halves = mx.concatenate([half, half + half.size], axis=1)  # what is gated, then the gates
    return {
        "mlp_mixer": {"token_mixing.fc1": (hidden, parts), "token_mixing.fc2": (parts, hidden)},
        "resmlp": {"token_mixing": (parts, parts)},
        "gmlp": {"gate.proj": (parts, parts)},
        "gmixer": {"token_mixing.fc1": (halves, parts), "token_mixing.fc2": (parts, half)},
    }[config.model_type]


def _block_diagonal(weight: mx.array, rows: mx.array, columns: mx.array) -> mx.array:
    """Zeros, but for K copies of `weight` at the rows (K, out) and columns (K, in)."""
    large = mx.zeros((rows.size, columns.size), weight.dtype)
    large[rows[:, :, None], columns[:, None, :]] = weight
    return large
