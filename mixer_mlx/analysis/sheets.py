"""Contact sheets: images with their predictions or labels below."""

import functools
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mixer_mlx.data.mixing import Labels, SoftLabels
from mixer_mlx.images.thumbnail import SIDE, thumbnail

_GAP = 16
_TEXT_HEIGHT = 46
_HEADING_HEIGHT = 36
_MAX_COLUMNS = 10

_PAPER, _MOUNT, _INK, _FAINT = "#ffffff", "#f1f1ef", "#1d1d1b", "#8a8a86"
_TRACK, _BAR = "#e4e4e0", "#3b6fb6"

_ELLIPSIS = "…"
_REPLACEMENT = "?"


@dataclass(frozen=True)
class Tile:
    """One image of a sheet. `image` is RGB, or None for one that can't be shown.

    `title` and `probability` (0 to 1) are the prediction, None if there is none; `caption` is shown
    below, cut at its start to fit.
    """

    image: Image.Image | None
    caption: str
    title: str | None = None
    probability: float | None = None


def contact_sheet(tiles: Sequence[Tile]) -> Image.Image:
    """An RGB page with about as many rows of tiles as columns, at most 10 columns."""
    columns = max(1, min(_MAX_COLUMNS, math.ceil(math.sqrt(len(tiles)) * 1.1)))
    rows = math.ceil(len(tiles) / columns)
    width, height = SIDE + _GAP, SIDE + _TEXT_HEIGHT + _GAP
    page = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _PAPER)
    draw = ImageDraw.Draw(page)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        _draw_tile(page, draw, tile, _GAP + column * width, _GAP + row * height)
    return page


def grouped_sheet(sections: Sequence[tuple[str, Sequence[Sequence[Tile]]]]) -> Image.Image:
    """An RGB page of headings with groups of related tiles below each.

    Groups of two or more are framed; at most 10 tiles of a group are drawn.
    """
    width, height = SIDE + _GAP, SIDE + _TEXT_HEIGHT + _GAP
    headings, placed, y = [], [], _GAP
    for heading, groups in sections:
        headings.append((heading, y))
        y, column = y + _HEADING_HEIGHT, 0
        for group in (list(group)[:_MAX_COLUMNS] for group in groups):
            if column + len(group) > _MAX_COLUMNS:
                y, column = y + height, 0
            placed.append((group, _GAP + column * width, y))
            column += len(group)
        y += height
    page = Image.new("RGB", (_MAX_COLUMNS * width + _GAP, y), _PAPER)
    draw = ImageDraw.Draw(page)
    for heading, top in headings:
        draw.text((_GAP, top), fit(heading, font_of(18), page.width - 2 * _GAP), _INK, font_of(18))
    for group, x, top in placed:
        for number, tile in enumerate(group):
            _draw_tile(page, draw, tile, x + number * width, top)
        if len(group) > 1:
            right, bottom = x + len(group) * width - _GAP + 4, top + height - _GAP
            draw.rectangle((x - 5, top - 5, right, bottom), outline=_FAINT)
    return page


def _draw_tile(page: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, x: int, y: int) -> None:
    draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), fill=_MOUNT)
    if tile.image is None:
        low, high = SIDE // 3, SIDE - SIDE // 3
        for ends in ((low, low, high, high), (low, high, high, low)):
            left, top, right, bottom = ends
            draw.line((x + left, y + top, x + right, y + bottom), fill=_FAINT, width=2)
    else:
        small = thumbnail(tile.image)
        page.paste(small, (x + (SIDE - small.width) // 2, y + (SIDE - small.height) // 2))
    below = y + SIDE
    if tile.probability is not None:
        draw.rectangle((x, below, x + SIDE - 1, below + 4), fill=_TRACK)
        draw.rectangle((x, below, x + SIDE * min(1, tile.probability), below + 4), fill=_BAR)
    _draw_text(draw, tile, x, below + 9)


def _draw_text(draw: ImageDraw.ImageDraw, tile: Tile, x: int, y: int) -> None:
    large, small = font_of(15), font_of(12)
    percent = "" if tile.probability is None else f"{tile.probability:.1%}"
    percent_width = math.ceil(large.getlength(percent))
    title = "unsure" if tile.title is None else tile.title
    room = SIDE - percent_width - (8 if percent else 0)
    ink = _FAINT if tile.probability is None else _INK
    draw.text((x, y), fit(title, large, room), fill=ink, font=large)
    draw.text((x + SIDE - percent_width, y), percent, fill=_INK, font=large)
    draw.text((x, y + 20), fit(tile.caption, small, SIDE, cut_start=True), fill=_FAINT, font=small)


def fit(text: str, font: ImageFont.FreeTypeFont, width: int, *, cut_start: bool = False) -> str:
    """Text on one line of at most `width` pixels, cut with `…`.

    Accents are dropped, as the font has none; unprintable characters become `?`.
    """
    plain = "".join(char if char.isprintable() else _REPLACEMENT for char in text)
    letters = unicodedata.normalize("NFKD", plain)
    text = "".join(char for char in letters if not unicodedata.combining(char))
    text = text[-500:] if cut_start else text[:500]
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + _ELLIPSIS) > width:
        text = text[1:] if cut_start else text[:-1]
    return _ELLIPSIS + text.lstrip() if cut_start else text.rstrip() + _ELLIPSIS


@functools.cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font. Beyond ASCII, it shows empty boxes."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImportError("Pillow was built without FreeType; install its wheel.")
    return font


def batch_sheet(pixels: NDArray[np.uint8], labels: Labels, classes: Sequence[str]) -> Image.Image:
    """An RGB page of pixels (N, H, W, 1 or 3) with the names of their classes.

    Soft labels add the weight of the class, and the classes mixed into it.
    """
    tiles = [Tile(_image(pixels[i]), *_texts(labels, i, classes)) for i in range(len(pixels))]
    return contact_sheet(tiles)


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).convert("RGB")


def _texts(labels: Labels, i: int, classes: Sequence[str]) -> tuple[str, str]:
    """Caption and title of example i."""
    if not isinstance(labels, SoftLabels):
        return "", classes[labels[i]]
    (label, weight), *others = zip(labels.labels[:, i], labels.weights[:, i], strict=True)
    mixed = [f"{amount:.2f} {classes[other]}" for other, amount in others]
    caption = " + ".join([f"{weight:.2f}", *mixed]) if mixed else f"weight {weight:.2f}"
    return caption, classes[label]
