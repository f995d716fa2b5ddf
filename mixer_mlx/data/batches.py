"""Checks of batches in NumPy, before MLX sees them.

MLX doesn't check indices: one that is out of range reads and writes memory of others.
"""

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.config import MixerConfig
from mixer_mlx.errors import ConfigError

from .mixing import Labels, SoftLabels


def check_pixels(pixels: NDArray[np.uint8], config: MixerConfig) -> None:
    """Raise ConfigError unless pixels are uint8 (N, H, W, in), as `Preprocess` makes them."""
    expected = (*config.image_size, config.in_channels)
    if _is(pixels, "u") and pixels.itemsize == 1 and pixels.shape[1:] == expected and len(pixels):
        return
    raise ConfigError(
        f"Expected pixels of dtype uint8 and shape (N, {', '.join(map(str, expected))}), as the "
        f"model's Preprocess makes them, got {_came(pixels)}; they are normalised afterwards."
    )


def check_batch(
    config: MixerConfig,
    pixels: NDArray[np.uint8],
    labels: Labels | NDArray[Any],
    *,
    own_loss: bool = False,
    sums: bool = False,
) -> None:
    """Raise ConfigError for a batch that a training step can't take.

    With a loss of the user's own the targets may be any numbers, (N, ...). `sums`: the weights of
    mixtures must sum to 1.
    """
    check_pixels(pixels, config)
    soft = isinstance(labels, SoftLabels)
    if own_loss and not soft:
        check_targets(labels, (len(pixels),))
    elif _is(labels, "fb") and labels.ndim == 2:
        check_targets(labels, (len(pixels), config.num_classes))
    else:
        check_labels(labels, len(pixels), config.num_classes)
    if sums:
        check_sums(labels)


def check_targets(targets: object, shape: tuple[int, ...]) -> None:
    """Raise ConfigError unless targets are finite numbers whose shape begins with `shape`."""
    good = _is(targets, "iufb") and targets.shape[: len(shape)] == shape
    if good and np.isfinite(targets).all():  # type: ignore[call-overload]
        return
    raise ConfigError(
        f"Expected a NumPy array of finite targets of shape {shape}, got {_came(targets)}."
    )


def check_labels(labels: Labels | NDArray[Any], size: int, classes: int) -> None:
    """Raise ConfigError unless there are `size` labels, or mixtures, of 0 to classes - 1."""
    indices, weights = labels if isinstance(labels, SoftLabels) else (labels, None)
    if not _is(indices, "iu") or indices.shape[-1:] != (size,):
        raise ConfigError(
            f"Expected a whole number for each of the {size} images as labels, got "
            f"{_came(indices)}; give classes 0 to {classes - 1}."
        )
    if weights is None:
        good = indices.ndim == 1
    else:
        good = indices.ndim == 2 and _is(weights, "f") and weights.shape == indices.shape
        good = good and bool(np.isfinite(weights).all())
    if not good:
        raise ConfigError(
            "Expected labels (N,), or SoftLabels of labels and finite weights (T, N), got "
            f"{_came(indices)}{'' if weights is None else ' and ' + _came(weights)}; reshape them."
        )
    check_indices("label", indices, classes)


def check_indices(what: str, indices: NDArray[Any], count: int) -> None:
    """Raise ConfigError unless all are from 0 to count - 1."""
    wrong = indices[(indices < 0) | (indices >= count)]
    if not wrong.size:
        return
    value = int(wrong.flat[0])
    if value < 0:
        cause = "leave out images without a class"
    elif value == count:
        cause = "if they count from 1, subtract 1"
    else:
        cause = "give the model a head for all classes"
    raise ConfigError(
        f"Found the {what} {value}, but the model has the classes 0 to {count - 1}; {cause}."
    )


def check_sums(labels: Labels | NDArray[Any]) -> None:
    """Raise ConfigError unless the weights of each example's mixture sum to 1."""
    if not isinstance(labels, SoftLabels):
        return
    sums = labels.weights.sum(axis=0)
    if np.abs(sums - 1).max(initial=0) > 1e-3:
        wrong = sums[np.abs(sums - 1).argmax()]
        raise ConfigError(
            f"The weights of an example's SoftLabels sum to {wrong:.3g}; under the sigmoid loss "
            'they must sum to 1, unless they balance classes (the recipe\'s balance "loss").'
        )


def _is(array: object, kinds: str) -> TypeGuard[NDArray[Any]]:
    return isinstance(array, np.ndarray) and array.dtype.kind in kinds


def _came(array: object) -> str:
    if not isinstance(array, np.ndarray):
        return type(array).__name__
    return f"{array.dtype} {array.shape}"
