"""16-bit images in 8 bits: what range they use, and what is black and white in it."""

import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

# Scanners, cameras and microscopes store 8 or 12 bits in 16, CT Hounsfield units from -1024; those
# of one data set should fall into the same range, so the steps are wide.
_GREY_RANGES = ((0, 255), (0, 4095), (-128, 127), (-1024, 3071), (-4096, 4095))
_WHITE_IS_ZERO = 0  # a TIFF's photometric interpretation


def eight_bits(image: Image.Image) -> Image.Image:
    """Modes "I" and "I;16*" -> "L", scaled from the range that `_grey_range` finds."""
    grey = image.convert("I")
    black, white = _grey_range(*grey.getextrema())
    lut = _scaled(np.arange(65_536), white - black).tolist()
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
        lut = [255 - value for value in lut]  # Pillow inverts 1 to 8 bits only
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and 0 <= transparent - black < len(lut):
        lut[transparent - black] = 255
    if black:
        grey = grey.point(lambda value: value - black)
    grey = grey.point(lut, "L")
    grey.info = {}  # its transparent value is a 16-bit one
    return grey


def eight_bits_array(array: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """uint16 (H, W) or (H, W, 1, 3 or 4) -> uint8, from the range of all its colours.

    An alpha channel is scaled from its own range: opaque is its type's highest value.
    """
    colours, alpha = (array[..., :3], array[..., 3:]) if array.shape[2:] == (4,) else (array, None)
    _, white = _grey_range(int(colours.min()), int(colours.max()))
    scaled = _scaled(colours.astype(np.int64), white)
    if alpha is None:
        return scaled
    highest = next(limit for limit in (255, 4095, 65_535) if alpha.max() <= limit)
    return np.concatenate([scaled, _scaled(alpha.astype(np.int64), highest)], axis=-1)


def _scaled(values: NDArray[np.int64], span: int) -> NDArray[np.uint8]:
    """0..span -> 0..255, rounded and clipped."""
    return np.minimum((510 * values + span) // (2 * span), 255).astype(np.uint8)


def check_depth(image: Image.Image) -> None:
    """Warn if a colour image with 16 bits, of which Pillow reads the upper 8, comes out black."""
    colours = (image.getchannel(band) for band in image.getbands() if band != "A")
    if not any(np.asarray(colour).max() > 15 for colour in colours):
        warnings.warn(
            "16-bit colour images with values below 4096 are read as nearly black; save them with "
            "8 bits.",
            stacklevel=2,
        )


def _grey_range(least: int, most: int) -> tuple[int, int]:
    """The values of black and white: the first of _GREY_RANGES that holds those of the image.

    Otherwise those of 16 bits; values outside are clipped. Warns once for each narrower range.
    """
    for black, white in _GREY_RANGES:
        if black <= least and most <= white and (least or most):  # not all black
            warnings.warn(
                f"16-bit images with values within {black} to {white} are scaled from that range; "
                "save them with 8 bits to choose another.",
                stacklevel=2,
            )
            return black, white
    return (-32_768, 32_767) if least < 0 and most <= 32_767 else (0, 65_535)
