"""`Preprocess`: an image -> a model's input pixels."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixer_mlx.checks import check_choice, check_image_size, check_keys, check_number, check_numbers
from mixer_mlx.choices import Interpolation, ResizeMode
from mixer_mlx.errors import ConfigError, ImageError

from .decode import opened, rgb
from .inputs import ImageInput
from .pillow import quietly

if TYPE_CHECKING:
    import mlx.core as mx

Array = TypeVar("Array", NDArray[np.float32], "mx.array")

INTERPOLATIONS = {name: Image.Resampling[name.upper()] for name in get_args(Interpolation)}

# Above this size, only the crop's region of a resized image is computed, if that is far smaller.
_HUGE_PIXELS = 2**26
_HUGE_RATIO = 64

# A JPEG decoded at a half, a quarter or an eighth stays at least this many times as long and wide
# as its target. Then smooth photos differ by at most 3 of 255 from full decoding, and those with
# hard saturated edges by 5: full decoding clips before it averages.
_REDUCED_RATIO = 5.5

# Other images are first averaged over blocks of pixels, which leaves them at least this many times
# as long and wide as the resized image: photos differ by at most 1, and hard edges by 2. Decoders
# of HEIC, PNG, TIFF and WebP can't reduce.
_AVERAGED_RATIO = 8.0


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a model's input: resize, centre crop, normalisation.

    Results equal those of timm's `transforms_imagenet_eval`, pixel for pixel. `image_size` is
    (height, width). The image is first resized to S = floor(image_size / crop_pct):

        "shorter"  keeps the aspect ratio; the shorter side becomes S, or, if S isn't square, the
                   image becomes just large enough to cover S (there timm always uses bilinear;
                   here `interpolation` always applies)
        "squash"   both sides become S; with crop_pct 1 a plain resize to image_size

    `mean` and `std`, one number per channel, are for pixels in 0..1. One channel means grey; models
    with other than 1 or 3 channels can't be called with images. Raises ConfigError for a value of
    the wrong type or out of range.
    """

    image_size: tuple[int, int]
    resize_mode: ResizeMode = "shorter"
    crop_pct: float = 0.875
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        check_image_size("image_size", self.image_size)
        check_choice("resize_mode", self.resize_mode, ResizeMode)
        check_choice("interpolation", self.interpolation, Interpolation)
        check_number("crop_pct", self.crop_pct, 0.01, 1)
        check_numbers("mean", self.mean, -1e6, 1e6)
        check_numbers("std", self.std, 1e-6, 1e6)
        if len(self.mean) != len(self.std):
            raise ConfigError(
                f"mean has {len(self.mean)} numbers and std {len(self.std)}; give one per channel."
            )
        object.__setattr__(self, "image_size", tuple(self.image_size))
        object.__setattr__(self, "crop_pct", float(self.crop_pct))
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))

    @property
    def in_channels(self) -> int:
        """Channels of the model's input: 3, or 1 for grey."""
        return len(self.mean)

    def replace(self, **changes: Any) -> "Preprocess":
        """A copy with other values, checked again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        values = dataclasses.asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Preprocess":
        """The inverse of `to_dict`. Raises ConfigError for a missing or unknown key."""
        check_keys("preprocessing", values, cls, all_=True)
        return cls(**values)  # type: ignore[arg-type]

    def __call__(self, image: ImageInput, *, exact: bool = False) -> NDArray[np.uint8]:
        """A path, a PIL image, an array or another `ImageInput` -> uint8 (H, W, in_channels).

        An array is uint8 or uint16 and (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): grey, RGB or
        RGBA. EXIF orientation is applied, JPEGs far larger than needed are decoded at a reduced
        size, and others averaged before they are resized; `exact` disables all of it, as published
        evaluations do. Raises ImageError for anything
        else.
        """
        if self.in_channels not in (1, 3):
            raise ImageError(
                f"The model expects {self.in_channels} channels and images have 3; "
                "call the model with arrays instead."
            )
        at_least = math.ceil(_REDUCED_RATIO * max(self.target_size))
        with opened(image, at_least=None if exact else at_least) as source:
            upright = rgb(source, exact=exact)
            with quietly("resized", "crop or shrink it first"):
                if self.in_channels == 1:
                    upright = upright.convert("L")
                pixels = np.array(self._fit(upright, exact=exact))
        return pixels.reshape(*self.image_size, self.in_channels)

    def normalize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 pixels (..., H, W, in_channels) -> float32 (pixels / 255 - mean) / std."""
        if pixels.dtype != np.uint8 or pixels.shape[-1:] != (self.in_channels,):
            raise ImageError(
                f"Expected uint8 with {self.in_channels} channels last, got {pixels.dtype} "
                f"{pixels.shape}; use the pixels that this Preprocess returns."
            )
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return normalized(pixels.astype(np.float32), mean, std)

    @property
    def target_size(self) -> tuple[int, int]:
        """(height, width) of the image before the crop; with "shorter", what it just covers."""
        height, width = self.image_size
        return math.floor(height / self.crop_pct), math.floor(width / self.crop_pct)

    def _fit(self, image: Image.Image, *, exact: bool) -> Image.Image:
        """Resize and crop."""
        width, height = size = self._resized(*image.size)
        crop_height, crop_width = self.image_size
        # The resized image is never smaller than the crop, as crop_pct is at most 1.
        left, top = round((width - crop_width) / 2), round((height - crop_height) / 2)
        box = (left, top, left + crop_width, top + crop_height)
        resample = INTERPOLATIONS[self.interpolation]
        huge = max(_HUGE_PIXELS, _HUGE_RATIO * crop_width * crop_height)
        if width * height > huge:
            return _resize_region(image, size, box, resample)
        if width * image.height > huge:  # Pillow before 13 resizes rows first, at full height
            image = image.resize((image.width, height), resample)
        gap = None if exact else _AVERAGED_RATIO
        return image.resize(size, resample, reducing_gap=gap).crop(box)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of an image -> (width, height) before the crop."""
        to_height, to_width = self.target_size
        if self.resize_mode == "squash":
            return to_width, to_height
        if to_height != to_width:  # timm's ResizeKeepRatio
            ratio = min(height / to_height, width / to_width)
            return round(width / ratio), round(height / ratio)
        if width <= height:  # torchvision's Resize
            return to_width, int(to_width * height / width)
        return int(to_height * width / height), to_height


def normalized(pixels: Array, mean: Array, std: Array) -> Array:
    """(pixels / 255 - mean) / std, channels last: float32 in NumPy, any dtype in MLX."""
    return (pixels / 255 - mean) / std  # type: ignore[return-value]  # to mypy it is float64


def _resize_region(
    image: Image.Image,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    resample: Image.Resampling,
) -> Image.Image:
    """`image.resize(size).crop(box)`, without allocating all of `size`."""
    left, right, x0, x1 = _cut(image.width, size[0], box[0], box[2])
    top, bottom, y0, y1 = _cut(image.height, size[1], box[1], box[3])
    part = image.crop((left, top, right, bottom))
    return part.resize((box[2] - box[0], box[3] - box[1]), resample, (x0, y0, x1, y1))


def _cut(old: int, new: int, start: int, end: int) -> tuple[int, int, float, float]:
    """One axis of a resize from `old` to `new` pixels, of which start..end are wanted.

    Returns the first and last pixel that the filter reaches, and start..end in the image, relative
    to that first pixel: Pillow stores them in float32, which is coarse far from zero.
    """
    scale = old / new
    reach = math.ceil(2 * max(scale, 1)) + 1  # bicubic's support is 2
    first, last = start * scale, end * scale
    low, high = max(0, math.floor(first) - reach), min(old, math.ceil(last) + reach)
    return low, high, first - low, last - low
