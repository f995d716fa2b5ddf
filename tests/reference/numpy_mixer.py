"""MLP-Mixer in NumPy and float64, straight from the paper, with the official names of weights.

Written independently of the library: it is what the library is compared with for sizes that no
golden file has.
"""

import math

import numpy as np

Weights = dict[str, np.ndarray]


def random_weights(
    rng: np.random.Generator,
    *,
    num_tokens: int,
    patch: int,
    channels: int,
    dim: int,
    tokens_mlp: int,
    channels_mlp: int,
    blocks: int,
    classes: int,
) -> Weights:
    """Weights under the names of the official `.npz` files, float32, none of them zero."""
    shapes: dict[str, tuple[int, ...]] = {
        "stem/kernel": (patch, patch, channels, dim),
        "stem/bias": (dim,),
        "pre_head_layer_norm/scale": (dim,),
        "pre_head_layer_norm/bias": (dim,),
    }
    for i in range(blocks):
        for norm in ("LayerNorm_0", "LayerNorm_1"):
            shapes[f"MixerBlock_{i}/{norm}/scale"] = (dim,)
            shapes[f"MixerBlock_{i}/{norm}/bias"] = (dim,)
        for mlp, outer, inner in (
            ("token_mixing", num_tokens, tokens_mlp),
            ("channel_mixing", dim, channels_mlp),
        ):
            shapes[f"MixerBlock_{i}/{mlp}/Dense_0/kernel"] = (outer, inner)
            shapes[f"MixerBlock_{i}/{mlp}/Dense_0/bias"] = (inner,)
            shapes[f"MixerBlock_{i}/{mlp}/Dense_1/kernel"] = (inner, outer)
            shapes[f"MixerBlock_{i}/{mlp}/Dense_1/bias"] = (outer,)
    if classes:
        shapes["head/kernel"] = (dim, classes)
        shapes["head/bias"] = (classes,)
    return {
        name: rng.normal(1 if "scale" in name else 0, 0.3, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def forward(weights: Weights, images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, channels) -> logits, or pre-logits where there is no head; tanh GELU."""
    x = _patches(images.astype(np.float64), weights["stem/kernel"]) + weights["stem/bias"]
    i = 0
    while f"MixerBlock_{i}/LayerNorm_0/scale" in weights:
        y = _layer_norm(x, weights, f"MixerBlock_{i}/LayerNorm_0")
        y = _mlp(np.swapaxes(y, 1, 2), weights, f"MixerBlock_{i}/token_mixing")
        x = x + np.swapaxes(y, 1, 2)
        y = _layer_norm(x, weights, f"MixerBlock_{i}/LayerNorm_1")
        x = x + _mlp(y, weights, f"MixerBlock_{i}/channel_mixing")
        i += 1
    x = _layer_norm(x, weights, "pre_head_layer_norm").mean(axis=1)
    return x @ weights["head/kernel"] + weights["head/bias"] if "head/kernel" in weights else x


def _patches(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A convolution whose stride is its size, patch by patch in raster order."""
    P = kernel.shape[0]
    _, H, W, _ = images.shape
    tokens = [
        np.tensordot(images[:, y : y + P, x : x + P], kernel, axes=3)
        for y in range(0, H, P)
        for x in range(0, W, P)
    ]
    return np.stack(tokens, axis=1)


def _layer_norm(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-6) * weights[f"{name}/scale"] + weights[f"{name}/bias"]


def _mlp(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    x = x @ weights[f"{name}/Dense_0/kernel"] + weights[f"{name}/Dense_0/bias"]
    x = x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x @ weights[f"{name}/Dense_1/kernel"] + weights[f"{name}/Dense_1/bias"]
