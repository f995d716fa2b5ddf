"""Fixed orders of an image's pixels, for the paper's question what a model assumes about them."""

import functools

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from .choices import Shuffle


@functools.cache
def pixel_order(
    shuffle: Shuffle, image_size: tuple[int, int], patch_size: int
) -> NDArray[np.int64]:
    """Where each pixel of the shuffled image comes from, (H * W,), both in raster order.

    "patches" permutes the patches, and the pixels inside all of them alike; "pixels" permutes all
    pixels (arXiv 2105.01601, section 3.4). The order depends on the arguments alone.
    """
    H, W = image_size
    # RandomState's numbers are the same in every version of NumPy, those of Generator aren't.
    rng = np.random.RandomState(0)
    pixels = np.arange(H * W)
    if shuffle == "pixels":
        return rng.permutation(pixels)
    h, w, P = H // patch_size, W // patch_size, patch_size
    patches = pixels.reshape(h, P, w, P).transpose(0, 2, 1, 3).reshape(h * w, P * P)
    patches = patches[rng.permutation(h * w)][:, rng.permutation(P * P)]
    return patches.reshape(h, w, P, P).transpose(0, 2, 1, 3).ravel()


def shuffled(x: mx.array, shuffle: Shuffle, patch_size: int) -> mx.array:
    """Images (N, H, W, channels) with their pixels in the order of `pixel_order`."""
    _, H, W, channels = x.shape
    order = mx.array(pixel_order(shuffle, (H, W), patch_size))
    return x.reshape(-1, H * W, channels)[:, order].reshape(-1, H, W, channels)
