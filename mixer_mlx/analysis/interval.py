"""How sure an accuracy is, from the number of images it was measured on."""

import math

Z95 = 1.959963984540054
"""Standard deviations of a normal distribution between which 95 % of it lies."""


def with_interval(fraction: float, images: float, digits: int = 1) -> str:
    """An accuracy (0 to 1) with its interval in per cent, e.g. "83.3% (64.1-93.3% at 95%)"."""
    interval = in_per_cent(fraction * images, round(images))
    return f"{fraction:.{digits}%} ({interval} at 95%)"


def in_per_cent(right: float, total: int) -> str:
    """The interval of `wilson`, e.g. "64.1-93.3%"."""
    low, high = wilson(right, total)
    return f"{100 * low:.1f}-{high:.1%}"


def wilson(right: float, total: int, z: float = Z95) -> tuple[float, float]:
    """The interval of a fraction, `right` of `total`, at 95 % for the default `z`.

    Wilson's score interval (1927), which holds for few images and near 0 and 1, too. Without
    images, (0, 1).
    """
    if not total:
        return 0.0, 1.0
    fraction = right / total
    centre = fraction + z * z / (2 * total)
    half = z * math.sqrt(fraction * (1 - fraction) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
