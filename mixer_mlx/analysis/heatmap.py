"""Explanations as images: a map's colours over the image that it explains."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mixer_mlx.classify import Classifier
from mixer_mlx.errors import ImageError
from mixer_mlx.images.decode import ImageInput
from mixer_mlx.images.thumbnail import SIDE as TILE

from .evaluate import Outcome
from .explain import Explainer, Explanation, Map
from .filters import coloured
from .report import worst_mistakes
from .sheets import fit, font_of

REPORT_STEPS = 8
"""Half as many as by default: a report has up to 24 maps."""

SIDE = 360
"""The longer side of an image on the page."""

_MARGIN, _PANEL, _HEAD, _FOOT = 24, 300, 62, 56
_PAPER, _INK, _FAINT, _TRACK, _BAR = "#ffffff", "#1d1d1b", "#6f6f6b", "#e4e4e0", "#3b6fb6"
_OPACITY = 0.72
_METHODS = {
    "rise": "RISE: random masks",
    "occlusion": "Occlusion: squares of 3 x 3 patches",
    "gradient": "Integrated gradients",
}


def overlay(pixels: NDArray[np.uint8], values: Map, side: int = SIDE) -> Image.Image:
    """An RGB image with its map: orange speaks for the class, blue against it.

    `pixels` is the model's input, (H, W, 1 or 3). Strong colours are the map's largest numbers; the
    image below is grey, so that no colour is its own.
    """
    size = _size(pixels, side)
    grey = np.asarray(enlarged(pixels, side).convert("L"), np.float32)[..., None]
    strongest = float(np.abs(values).max()) or 1.0
    smooth = Image.fromarray(values / strongest).resize(size, Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(smooth), -1, 1)
    ends = coloured(np.where(share < 0, -1, 1).astype(np.float32)).astype(np.float32)
    opacity = (_OPACITY * np.abs(share))[..., None]
    mixed = (0.7 * grey + 0.3 * 255) * (1 - opacity) + ends * opacity
    return Image.fromarray(np.round(mixed).astype(np.uint8))


def maps_of_mistakes(
    classifier: Classifier,
    entries: Sequence[ImageInput],
    outcomes: Sequence[Outcome],
    *,
    exact: bool = False,
) -> dict[int, Image.Image]:
    """Maps of the worst mistakes, by their numbers: why the model chose the class it did.

    By integrated gradients, which take the fewest passes. Images that can't be read any more
    are left out.
    """
    explainer, maps = Explainer(classifier, "gradient", steps=REPORT_STEPS), {}
    for number in worst_mistakes(outcomes):
        try:
            pixels = classifier.preprocess(entries[number], exact=exact)
        except ImageError:
            continue
        values = explainer.map(pixels, outcomes[number].predicted)
        maps[number] = overlay(pixels, values, TILE)
    return maps


def enlarged(pixels: NDArray[np.uint8], side: int = SIDE) -> Image.Image:
    """A model's input, (H, W, 1 or 3), as an RGB image whose longer side is `side`."""
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).convert("RGB")
    few = max(pixels.shape[:2]) * 2 <= side
    return image.resize(
        _size(pixels, side), Image.Resampling.NEAREST if few else Image.Resampling.LANCZOS
    )


def page(found: Explanation) -> Image.Image:
    """The image, its map, the most probable classes, and the map's scores, as an RGB page."""
    left, right = enlarged(found.pixels), overlay(found.pixels, found.map)
    columns = [_MARGIN + n * (left.width + _MARGIN) for n in range(3)]
    height = _HEAD + max(left.height, 250) + _FOOT
    canvas = Image.new("RGB", (columns[2] + _PANEL + _MARGIN, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    large, small = font_of(18), font_of(14)
    title = f"Why {found.prediction.label}, {found.prediction.probability:.1%}?"
    draw.text((_MARGIN, 14), fit(title, large, canvas.width - 2 * _MARGIN), _INK, large)
    draw.text((_MARGIN, 38), _METHODS[found.method], _FAINT, small)
    canvas.paste(left, (columns[0], _HEAD))
    canvas.paste(right, (columns[1], _HEAD))
    _draw_scale(canvas, draw, found.map, columns[1], _HEAD + left.height + 10)
    _draw_classes(draw, found, columns[2])
    _draw_scores(draw, found, columns[2])
    return canvas


def _size(pixels: NDArray[np.uint8], side: int) -> tuple[int, int]:
    scale = side / max(pixels.shape[:2])
    return round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)


def _draw_scale(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, values: Map, x: int, y: int
) -> None:
    font, strongest = font_of(14), float(np.abs(values).max())
    ramp = coloured(np.linspace(-_OPACITY, _OPACITY, 121, dtype=np.float32))[None]
    canvas.paste(Image.fromarray(np.repeat(ramp, 12, axis=0)), (x, y))
    draw.text((x, y + 16), f"{-strongest:.2g}", _FAINT, font)
    draw.text((x + 120, y + 16), f"{strongest:.2g}", _FAINT, font, anchor="ra")
    draw.text((x + 134, y - 3), "change of probability by patch", _FAINT, font)


def _draw_classes(draw: ImageDraw.ImageDraw, found: Explanation, x: int) -> None:
    font = font_of(15)
    for number, prediction in enumerate(found.top):
        y = _HEAD + 26 * number
        percent = f"{prediction.probability:.1%}"
        bar = x + 0.97 * _PANEL * prediction.probability
        draw.rectangle((x, y + 19, x + _PANEL, y + 22), fill=_TRACK)
        draw.rectangle((x, y + 19, bar, y + 22), fill=_BAR)
        draw.text((x, y), fit(prediction.label, font, _PANEL - 70), _INK, font)
        draw.text((x + _PANEL, y), percent, _INK, font, anchor="ra")


def _draw_scores(draw: ImageDraw.ImageDraw, found: Explanation, x: int) -> None:
    font, y = font_of(14), _HEAD + 26 * 5 + 26
    rows = [
        ("", "this map", "random"),
        ("insertion", f"{found.scores.insertion:.3f}", f"{found.random.insertion:.3f}"),
        ("deletion", f"{found.scores.deletion:.3f}", f"{found.random.deletion:.3f}"),
    ]
    for number, row in enumerate(rows):
        for column, text in enumerate(row):
            at = (x + (0, 190, _PANEL)[column], y + 21 * number)
            ink = _INK if number and column else _FAINT
            draw.text(at, text, ink, font, anchor="ra" if column else "la")
    note = "Good: insertion above random, deletion below."
    draw.text((x, y + 66), note, _FAINT, font_of(12))
