"""`--preview` of `mixer train` and `mixer fine-tune`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four white and two black images, each with a pixel of its own."""
    for name, count, level in (("white", 4, 252), ("black", 2, 0)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            path = tmp_path / "photos" / name / f"{i}.png"
            image = Image.new("RGB", (32, 32), name)
            image.putpixel((0, 0), (level + i,) * 3)
            image.save(path)
    return tmp_path / "photos"


def tiles(path: Path) -> list[np.ndarray]:
    """The middles of a sheet's tiles, row by row; without those that are paper."""
    with Image.open(path) as page:
        pixels = np.asarray(page.convert("RGB"))
    height, width = pixels.shape[0] // 222, pixels.shape[1] // 176
    starts = [
        (16 + 222 * row, 16 + 176 * column) for row in range(height) for column in range(width)
    ]
    return [pixels[y + 40 : y + 120, x + 40 : x + 120] for y, x in starts]


def test_the_first_batch_is_drawn_and_nothing_trained(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    sheet = tmp_path / "sheet.png"
    command = ("fine-tune", photos, "-m", "cifar10", "--recipe", "cifar", "--preview", sheet)
    run = mixer(*command, "--val-fraction", "0.25", "--mixup", "0.5")
    assert run.code == 0, run.err
    assert "nothing was trained" in run.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "sheet.png"]
    drawn = [tile.mean() for tile in tiles(sheet)]
    assert all(tile.std() < 1 for tile in tiles(sheet))
    greys = [value for value in drawn if 5 < value < 250]
    assert len(greys) == 2, "one black image among three white ones is in two mixtures"
    assert sum(greys) == pytest.approx(255, abs=2)
    before = sheet.read_bytes()
    again = mixer(*command)
    assert again.code == 1
    assert "--force" in again.err
    assert sheet.read_bytes() == before
    assert mixer(*command, "--force").code == 0
    assert sheet.read_bytes() != before


def test_train_has_it_and_options_are_checked(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    sheet = tmp_path / "sheet.png"
    command = ("train", photos, "--like", "cifar10", "--preview")
    options = ("--recipe", "cifar", "--rand-augment", "2x15", "--cutmix", 1, "--balance", "loss")
    assert mixer(*command, sheet, *options, "--random-erasing", 0.5).code == 0
    assert len(tiles(sheet)) >= 5
    wrong = mixer(*command, tmp_path / "sheet.jpg")
    assert wrong.code == 1
    assert "sheet.png" in wrong.err
    for value in ("2", "2x", "x15", "twice"):
        run = mixer(*command, tmp_path / "new.png", "--rand-augment", value)
        assert run.code == 2
        assert "2x15" in run.err
    assert mixer(*command, tmp_path / "new.png", "--rand-augment", "2x31").code == 1


def test_options_reach_the_recipe(mixer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    options = ("--rand-augment", "3x9", "--mixup", 0.2, "--cutmix", 1, "--random-erasing", 0.25)
    more = ("--balance", "sampling", "--layer-decay", 0.75, "--optimizer", "muon")
    shown = mixer("fine-tune", tmp_path, "--show-recipe", *options, *more).out.splitlines()
    for line in (
        "rand_augment = [3, 9]",
        "mixup = 0.2",
        "cutmix = 1.0",
        "erasing = 0.25",
        'balance = "sampling"',
        "layer_decay = 0.75",
        'optimizer = "muon"',
    ):
        assert line in shown
    paper = ("train", "--show-recipe", "--recipe", "paper-imagenet")
    assert "rand_augment" not in mixer(*paper, "--rand-augment", "none").out
    assert "rand_augment = [2, 15]" in mixer(*paper).out
