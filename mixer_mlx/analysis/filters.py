"""A Mixer's weights as images: what its units look like, as in the paper's section 3.5.

A hidden unit of a token-mixing MLP has one weight per patch, so its row of the first matrix is an
image of (H/P) x (W/P); so is its column of the second matrix, which says where it writes. Each unit
of the stem is an image of P x P in colour.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mixer_mlx.errors import ConfigError
from mixer_mlx.model import MlpMixer
from mixer_mlx.quantization import dequantize

Images = NDArray[np.float32]
"""Weights as images, (units, h, w), or in colour (units, h, w, channels)."""

FIRST_BLOCKS = 3
"""As many blocks as the paper's Figure 5 shows."""

PERCENTILE = 99.5
"""The colours of a sheet end at this percentile of its absolute weights: a few would fade all."""

_PAPER, _INK, _FAINT = "#ffffff", "#1d1d1b", "#6f6f6b"
_NEGATIVE, _ZERO, _POSITIVE = (26, 77, 143), (247, 247, 245), (178, 64, 16)
_WIDTH, _MARGIN, _GAP, _PAIR_GAP, _HEAD, _FOOT = 1200, 24, 9, 2, 74, 62
_SMALL, _LARGE, _FEW = 42, 56, 128


@dataclass(frozen=True)
class Filters:
    """Units of one layer as images, in the order in which they are shown.

    `units[i]` is the number in the model of `images[i]`. If `paired`, each even one is followed by
    its opposite. `layer` is the weight's name, e.g. "blocks.0.token_mixing.fc1".
    """

    layer: str
    caption: str
    images: Images
    units: NDArray[np.intp]
    paired: bool

    @property
    def scale(self) -> float:
        """The weight at the ends of the colours, above zero."""
        return float(np.percentile(np.abs(self.images), PERCENTILE)) or 1.0


def filters_of(model: MlpMixer, blocks: Sequence[int] | str = "first") -> list[Filters]:
    """The stem's units, then what each of the blocks reads and writes; "first": three, or "all".

    The stem of a model whose channels aren't colours is left out. Raises ConfigError for a block
    that the model doesn't have.
    """
    if isinstance(blocks, str):
        blocks = range(len(model.blocks))[: None if blocks == "all" else FIRST_BLOCKS]
    stem = [stem_filters(model)] if model.config.in_channels in (1, 3) else []
    return stem + [filters for block in blocks for filters in token_filters(model, block)]


def stem_filters(model: MlpMixer) -> Filters:
    """The stem's units, (C, P, P, 1 or 3), low frequencies first.

    Raises ConfigError for a model of other channels, whose weights aren't colours.
    """
    P, channels = model.config.patch_size, model.config.in_channels
    if channels not in (1, 3):
        raise ConfigError(
            f"The model takes {channels} channels, which can't be shown as colours; expected 1 "
            "or 3."
        )
    images = _numbers(dequantize(model).stem.weight)
    order = np.argsort(frequencies(images), kind="stable")
    colour = "grey" if channels == 1 else "RGB"
    caption = f"Patch embedding: {len(images):,} units as {P} x {P} {colour} images."
    return Filters("stem", f"{caption} Low frequencies first.", images[order], order, False)


def token_filters(model: MlpMixer, block: int) -> tuple[Filters, Filters]:
    """The hidden units of a block's token mixing: what they read, and where they write.

    Both (D_S, H/P, W/P), in the order of `paired_order` for the first. Raises ConfigError for a
    block that the model doesn't have.
    """
    if model.config.model_type != "mlp_mixer":
        raise ConfigError(
            f"Only an MLP-Mixer's token mixing has hidden units to draw; this is a "
            f"{model.config.title}. `explain` shows what any model looks at."
        )
    if not 0 <= block < len(model.blocks):
        raise ConfigError(f"The model has no block {block}; expected 0 to {len(model.blocks) - 1}.")
    mlp, (h, w) = model.blocks[block].token_mixing, grid(model)
    reads = _numbers(mlp.fc1.weight).reshape(-1, h, w)
    writes = _numbers(mlp.fc2.weight).T.reshape(-1, h, w)
    order = paired_order(reads)
    name = f"blocks.{block}.token_mixing"
    units = f"{len(order):,} hidden units, one weight for each of the {h} x {w} patches."
    pairs = "Low frequencies first, each followed by the unit nearest to its negative."
    same = "In the order of the first matrix."
    return (
        Filters(
            f"{name}.fc1",
            f"Token mixing in block {block}, first matrix: what it reads. {units} {pairs}",
            reads[order],
            order,
            True,
        ),
        Filters(
            f"{name}.fc2",
            f"Token mixing in block {block}, second matrix: where it writes. {units} {same}",
            writes[order],
            order,
            True,
        ),
    )


def grid(model: MlpMixer) -> tuple[int, int]:
    """The patches of an image, (H/P, W/P)."""
    (H, W), P = model.config.image_size, model.config.patch_size
    return H // P, W // P


def frequencies(images: Images) -> NDArray[np.float64]:
    """The mean frequency of each image, weighted by power, in cycles per pixel (0 to 0.71)."""
    power = np.abs(np.fft.fft2(images.astype(np.float64), axes=(1, 2))) ** 2
    if power.ndim == 4:
        power = power.sum(axis=-1)
    radius = np.hypot(np.fft.fftfreq(images.shape[1])[:, None], np.fft.fftfreq(images.shape[2]))
    total: NDArray[np.float64] = power.sum(axis=(1, 2))
    mean: NDArray[np.float64] = (power * radius).sum(axis=(1, 2)) / np.maximum(total, 1e-300)
    return mean


def paired_order(images: Images) -> NDArray[np.intp]:
    """Units by rising frequency, each followed by the one nearest to its negative.

    The paper's order (appendix E, "low frequency filters first", then "the unit that is closest to
    its inverse"), with each unit shown once: a partner is taken from those not yet shown. An odd
    number leaves the last one alone.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    lengths = (flat**2).sum(axis=1)
    # |a + b|^2 of all pairs, but for rounding
    distances = lengths[:, None] + lengths + 2 * flat @ flat.T
    np.fill_diagonal(distances, np.inf)
    free = np.ones(len(images), bool)
    order: list[int] = []
    for unit in np.argsort(frequencies(images), kind="stable").tolist():
        if not free[unit]:
            continue
        free[unit] = False
        order.append(unit)
        if free.any():
            partner = int(np.where(free, distances[unit], np.inf).argmin())
            free[partner] = False
            order.append(partner)
    return np.array(order, np.intp)


def sheet(filters: Filters) -> Image.Image:
    """An RGB page of all units on one scale, with a caption above and the scale below."""
    count, side = len(filters.images), _side(filters)
    height, width = (round(edge * side) for edge in _ratio(filters.images.shape[1:3]))
    columns = min(_columns(width, paired=filters.paired), count + count % 2)
    rows = math.ceil(count / columns)
    page = Image.new("RGB", (_WIDTH, _HEAD + rows * (height + _GAP) + _FOOT), _PAPER)
    draw = ImageDraw.Draw(page)
    _draw_caption(draw, filters)
    for number, pixels in enumerate(_pixels(filters)):
        row, column = divmod(number, columns)
        x = _MARGIN + _across(column, width, paired=filters.paired)
        tile = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
        page.paste(tile, (x, _HEAD + row * (height + _GAP)))
    _draw_scale(page, draw, filters)
    return page


def _numbers(weight: mx.array) -> Images:
    return np.array(weight.astype(mx.float32))


def _ratio(shape: Sequence[int]) -> tuple[float, float]:
    longest = max(shape)
    return shape[0] / longest, shape[1] / longest


def _side(filters: Filters) -> int:
    """The longer side of a tile: a whole number of screen pixels for each weight."""
    longest = max(filters.images.shape[1:3])
    wanted = _LARGE if len(filters.images) <= _FEW else _SMALL
    return longest * max(1, wanted // longest)


def _across(column: int, width: int, *, paired: bool) -> int:
    if not paired:
        return column * (width + _GAP)
    pair, second = divmod(column, 2)
    return pair * (2 * width + _PAIR_GAP + _GAP) + second * (width + _PAIR_GAP)


def _columns(width: int, *, paired: bool) -> int:
    room = _WIDTH - 2 * _MARGIN + _GAP
    if paired:
        return 2 * max(1, room // (2 * width + _PAIR_GAP + _GAP))
    return max(1, room // (width + _GAP))


def _pixels(filters: Filters) -> NDArray[np.uint8]:
    values = np.clip(filters.images / filters.scale, -1, 1)
    if values.ndim == 3:
        return coloured(values)
    grey = np.round(127.5 + 127.5 * values).astype(np.uint8)
    return np.repeat(grey, 3, axis=3) if grey.shape[3] == 1 else grey


def coloured(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Numbers in -1..1 -> RGB (..., 3): blue below zero, white at zero, orange above."""
    zero = np.array(_ZERO, np.float64)
    ends = np.where(values[..., None] < 0, np.array(_NEGATIVE), np.array(_POSITIVE))
    return np.round(zero + np.abs(values[..., None]) * (ends - zero)).astype(np.uint8)


def _draw_caption(draw: ImageDraw.ImageDraw, filters: Filters) -> None:
    first, _, rest = filters.caption.partition(". ")
    draw.text((_MARGIN, 16), first, _INK, ImageFont.load_default(18))
    draw.text((_MARGIN, 42), rest, _FAINT, ImageFont.load_default(14))


def _draw_scale(page: Image.Image, draw: ImageDraw.ImageDraw, filters: Filters) -> None:
    """The colours from one end of the scale to the other, with their weights."""
    y, font = page.height - _FOOT + 12, ImageFont.load_default(14)
    if filters.images.ndim == 4:
        text = (
            f"Weights; mid-grey is 0, the darkest and the brightest value are ±{filters.scale:.3g}."
        )
        draw.text((_MARGIN, y), text, _FAINT, font)
        return
    ramp = coloured(np.linspace(-1, 1, 241, dtype=np.float32))[None]
    bar = Image.fromarray(np.repeat(ramp, 14, axis=0))
    page.paste(bar, (_MARGIN, y))
    for x, value in ((0, -filters.scale), (120, 0.0), (240, filters.scale)):
        anchor = "la" if x == 0 else ("ma" if x == 120 else "ra")
        draw.text(
            (_MARGIN + x, y + 19),
            f"{value:.3g}",
            _FAINT,
            font,
            anchor=anchor,
        )
    note = f"Weights; one scale for all units, which ends at the {PERCENTILE}th percentile."
    draw.text((_MARGIN + 262, y - 2), note, _FAINT, font)
