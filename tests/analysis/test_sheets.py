"""Contact sheets, pixel by pixel."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from mixer_mlx.analysis.sheets import Tile, contact_sheet, fit
from mixer_mlx.images.thumbnail import SIDE, thumbnail

GAP, STEP = 16, 176
BAR = (0x3B, 0x6F, 0xB6)


def test_thumbnails_keep_their_shape() -> None:
    sizes = [(320, 160), (32, 32), (1, 5000), (7, 3)]
    shown = [thumbnail(Image.new("RGB", size)).size for size in sizes]
    assert shown == [(160, 80), (160, 160), (1, 160), (160, 69)]


def test_images_stand_in_reading_order() -> None:
    colours = ["#ff0000", "#00ff00", "#0000ff", "#00ffff"]
    tiles = [Tile(Image.new("RGB", (50, 50), colour), "x.png", "red", 0.5) for colour in colours]
    page = np.asarray(contact_sheet(tiles))
    assert page.shape == (2 * 222 + GAP, 3 * STEP + GAP, 3)
    for number, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0)]):
        y, x = GAP + row * 222, GAP + column * STEP
        expected = [255 * ("f" in colours[number][i : i + 2]) for i in (1, 3, 5)]
        assert (page[y : y + SIDE, x : x + SIDE] == expected).all()


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_the_bar_is_as_long_as_the_probability(probability: float) -> None:
    page = np.asarray(contact_sheet([Tile(Image.new("RGB", (9, 9)), "x.png", "cat", probability)]))
    row = page[GAP + SIDE + 2]
    assert abs(int((row == BAR).all(axis=-1).sum()) - probability * SIDE) <= 1


@pytest.mark.parametrize(
    "text",
    ["W" * 900, "\u732b" * 200, "\x1b[2J\n\r\t" * 50, "\udcff\u202e" * 99, "\ufdfa" * 400],
)
@pytest.mark.parametrize("shown", [True, False])
def test_no_text_leaves_its_tile(text: str, shown: bool) -> None:
    image = Image.new("RGB", (9, 9)) if shown else None
    tile = Tile(image, text, text, 0.5 if shown else None)
    page = np.asarray(contact_sheet([tile] * 2))
    ink = (page != 255).any(axis=-1)
    assert ink[GAP + SIDE + 6 :, GAP : GAP + SIDE].any()
    for margin in (slice(0, GAP), slice(GAP + SIDE, GAP + STEP), slice(-GAP, None)):
        assert not ink[:, margin].any()
    assert not ink[-GAP:].any()


def test_text_is_cut_to_fit() -> None:
    font = ImageFont.load_default(12)
    assert fit("cat", font, 100) == "cat"  # type: ignore[arg-type]
    assert fit("Caf\u00e9\n\x1b", font, 100) == "Cafe??"  # type: ignore[arg-type]
    long = fit("a" * 99, font, 60)  # type: ignore[arg-type]
    assert long == "a" * (len(long) - 1) + "\u2026"
    assert 40 < font.getlength(long) <= 60
    assert fit("x" * 99 + "1.jpg", font, 60, cut_start=True).endswith("x1.jpg")  # type: ignore[arg-type]
