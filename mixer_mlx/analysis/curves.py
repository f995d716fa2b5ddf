"""Line charts, drawn as an image."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageFont

from mixer_mlx.features.few_shot import ShotResult

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 24, 56, 48
_INK, _FAINT, _PAPER = "#1d1d1b", "#d9d9d5", "#ffffff"
_COLOURS = ("#3b6fb6", "#d1642e", "#2f8f5b", "#8a5aa8")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One chart: up to four named curves of (x, y).

    `x_labels` replaces the ticks of the horizontal axis, and dots mark the points of short curves;
    `from_zero` starts the vertical axis at zero; `marked` are vertical lines with a label.
    """

    title: str
    curves: Mapping[str, Points]
    x_labels: Mapping[float, str] | None = None
    from_zero: bool = False
    marked: Mapping[float, str] = field(default_factory=dict)


def draw_panels(panels: Sequence[Panel]) -> Image.Image:
    """Charts below one another, as an RGB image. Curves without points are left out."""
    page = Image.new("RGB", (_WIDTH, _HEIGHT * len(panels)), _PAPER)
    draw = ImageDraw.Draw(page)
    for number, panel in enumerate(panels):
        _draw_panel(draw, panel, number * _HEIGHT)
    return page


def shots_panel(title: str, results: Sequence[ShotResult]) -> Panel:
    """Accuracy in percent by shots: the mean over the seeds, and extremes."""
    curves: dict[str, list[tuple[float, float]]] = {"mean": [], "best seed": [], "worst seed": []}
    for place, one in enumerate(results):
        summary = (one.mean, max(one.accuracies), min(one.accuracies))
        for points, value in zip(curves.values(), summary, strict=True):
            points.append((place, 100 * value))
    if all(len(one.accuracies) == 1 for one in results):
        curves = {"accuracy": curves["mean"]}
    names = {float(place): one.name for place, one in enumerate(results)}
    return Panel(f"{title}: accuracy (%) by images of each class", curves, x_labels=names)


def smoothed(points: Points, limit: int = 400) -> Points:
    """At most `limit` points, each the mean of equally many neighbours."""
    size = max(1, math.ceil(len(points) / limit))
    bins = [points[i : i + size] for i in range(0, len(points), size)]
    return [(some[-1][0], sum(y for _, y in some) / len(some)) for some in bins]


def _draw_panel(draw: ImageDraw.ImageDraw, panel: Panel, top: int) -> None:
    curves = panel.curves
    font = ImageFont.load_default(15)
    draw.text((_LEFT, top + 14), panel.title, _INK, font)
    finite = [(x, y) for points in curves.values() for x, y in points if math.isfinite(y)]
    if not finite:
        draw.text((_LEFT, top + _TOP), "no data yet", _INK, font)
        return
    x_ticks, x_names = _x_axis(panel, finite)
    lowest = 0.0 if panel.from_zero else min(y for _, y in finite)
    y_ticks = ticks(lowest, max(y for _, y in finite))
    box = (_LEFT, top + _TOP, _WIDTH - _RIGHT, top + _HEIGHT - _BOTTOM)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return box[0] + across * (box[2] - box[0]), box[3] - up * (box[3] - box[1])

    small = ImageFont.load_default(13)
    for y in y_ticks:
        _, height = place(0, y)
        draw.line((box[0], height, box[2], height), _FAINT)
        draw.text((box[0] - 8, height), f"{y:g}", _INK, small, anchor="rm")
    for x, name in x_names.items():
        draw.text((place(x, y_ticks[0])[0], box[3] + 8), name, _INK, small, anchor="ma")
    marks = [(place(x, y_ticks[0])[0], name) for x, name in panel.marked.items()]
    for across, _ in marks:
        draw.line((across, box[1], across, box[3]), _INK)
    for number, (across, name) in enumerate(marks):
        at = across + 6, box[1] + 18 * number
        draw.text(at, name, _INK, small, stroke_width=3, stroke_fill=_PAPER)
    left = float(box[2])
    for (name, points), colour in reversed(list(zip(curves.items(), _COLOURS, strict=False))):
        if not points:
            continue
        line = [place(x, y) for x, y in points if math.isfinite(y)]
        draw.line(line, colour, 2, joint="curve")
        for x, y in line if (panel.x_labels and len(line) < 50) or len(line) == 1 else ():
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), colour)
        left -= draw.textlength(name, small) + 28
        draw.line((left, top + 23, left + 16, top + 23), colour, 3)
        draw.text((left + 21, top + 23), name, _INK, small, anchor="lm")


def _x_axis(panel: Panel, points: Points) -> tuple[list[float], dict[float, str]]:
    """Positions from the axis's start to its end, and the labels by position."""
    if panel.x_labels:
        return [min(panel.x_labels) - 0.5, max(panel.x_labels) + 0.5], dict(panel.x_labels)
    marks = ticks(0, max(x for x, _ in points))
    return marks, {x: f"{x:g}" for x in marks}


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, two or more."""
    span = high - low or abs(high) or 1.0
    unit = 10 ** math.floor(math.log10(span / about))
    step = next(k * unit for k in (1, 2, 5, 10) if span / (k * unit) <= about)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]
