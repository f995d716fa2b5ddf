import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixer_mlx.analysis.doubts import ALIKE
from mixer_mlx.cli.check import CheckOptions
from mixer_mlx.images.hashing import NEAR


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of ten images of noise, in train and in val."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(10):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{i}.png")
    return tmp_path / "data"


def test_nothing_is_wrong(mixer, data: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("check", data, "--sheet", tmp_path / "sheet.png")
    assert run.code == 0, run.err
    assert run.out.splitlines() == [
        f"{data}: 40 images",
        "",
        "class  train  val",
        "cat    10     10",
        "dog    10     10",
        "",
        "sizes   32x32 (40)",
        "stored  colour (40)",
        "",
        "no serious problems found",
    ]
    assert "Nothing to draw" in run.err
    assert not (tmp_path / "sheet.png").exists()


def test_a_leak_and_a_copy(mixer, data: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (data / "val/cat/leak.png").write_bytes((data / "train/cat/3.png").read_bytes())
    (data / "train/dog/copy.png").write_bytes((data / "train/dog/4.png").read_bytes())
    sheet = tmp_path / "sheet.png"
    run = mixer("check", data, "--sheet", sheet)
    assert run.code == 1
    harm, look = run.out.split("serious problems:\n")[1].split("worth a look:\n")
    assert harm.splitlines() == [
        "  identical images in different splits: 1",
        "    train/cat/3.png  val/cat/leak.png (the same file)",
    ]
    assert look.splitlines() == [
        "  duplicate images: 1",
        "    train/dog/4.png  train/dog/copy.png (the same file)",
    ]
    with Image.open(sheet) as page:
        assert page.format == "PNG"
    again = mixer("check", data, "--sheet", sheet)
    assert again.code == 1
    assert "--force" in again.err
    assert again.out == ""
    assert mixer("check", data, "--sheet", sheet, "--force").out == run.out


def test_what_is_only_worth_a_look_is_no_failure(mixer, data: Path) -> None:  # type: ignore[no-untyped-def]
    (data / "train/dog/copy.png").write_bytes((data / "train/dog/4.png").read_bytes())
    assert mixer("check", data).code == 0
    run = mixer("check", data, "--image-size", "33x32")
    assert run.code == 0
    assert "images smaller than the model's input: 41" in run.out
    assert "and 36 more; --format json lists all" in run.out


def test_json_lists_everything(mixer, data: Path) -> None:  # type: ignore[no-untyped-def]
    (data / "train/cat/0.png").write_text("no image")
    (data / "val/dog/cat.png").write_bytes((data / "train/cat/3.png").read_bytes())
    run = mixer("check", data, "--format", "json")
    assert run.code == 1
    *findings, last = map(json.loads, run.out.splitlines())
    assert [one["finding"] for one in findings] == ["unreadable", "two_labels", "leak"]
    assert all(one["harmful"] for one in findings)
    assert "isn't an image in a supported format" in findings[0]["detail"]
    assert findings[1]["images"] == [
        {"image": str(data / "train/cat/3.png"), "split": "train", "class": "cat"},
        {"image": str(data / "val/dog/cat.png"), "split": "val", "class": "dog"},
    ]
    assert last["summary"] == {
        "images": 41,
        "splits": {"train": {"cat": 10, "dog": 10}, "val": {"cat": 10, "dog": 11}},
        "stored": {"colour": 40},
        "sizes": {"32x32": 40},
        "findings": {"unreadable": 1, "two_labels": 1, "leak": 1},
    }


def test_names_are_made_printable(mixer, data: Path) -> None:  # type: ignore[no-untyped-def]
    (data / "train/cat/\x1b[2J.png").write_text("no image")
    run = mixer("check", data)
    assert "\x1b" not in run.out
    assert "\\x1b[2J.png" in run.out


def test_not_a_dataset(mixer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("check", tmp_path / "nowhere")
    assert run.code == 1
    assert "nowhere" in run.err
    assert mixer("check", tmp_path, "--near", 17).code == 2
    assert mixer("check", tmp_path, "--image-size", "big").code == 2


def test_what_features_say(mixer, golden: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A crop of a cat among the dogs, and two cats under the label of dogs."""
    pets, plot, sheet = tmp_path / "pets", tmp_path / "plot.png", tmp_path / "sheet.png"
    with zipfile.ZipFile(golden / "cifar_images.zip") as archive:
        archive.extractall(pets)
    with Image.open(pets / "cat/0003.jpg") as image:
        image.crop((1, 2, 31, 31)).save(pets / "dog/crop.png")
    for number in ("05", "12"):
        (pets / f"cat/00{number}.jpg").rename(pets / f"dog/cat{number}.jpg")
    args = ("check", pets, "-m", "cifar10", "--dtype", "float32", "-q")
    run = mixer(*args, "--plot", plot, "--sheet", sheet)
    assert run.code == 0, run.err
    text = (
        "images alike in their features, in different classes: 1\n    cat/0003.jpg  dog/crop.png (c"
    )
    assert text in run.out
    assert "dog/cat05.jpg (labelled dog, looks like cat)" in run.out
    assert "images between two classes: 8\n" in run.out
    heading = "images of each class, and a linear classifier's accuracy:\n"
    rows = [line.split()[:2] for line in run.out.split(heading)[1].splitlines()]
    assert rows == [
        ["shots", "images"],
        *([str(shots), str(2 * shots)] for shots in (1, 5, 10, 25)),
        ["all", "64"],
    ]
    for path in (plot, sheet):
        with Image.open(path) as image:
            assert image.format == "PNG"
    assert "--force" in mixer(*args, "--plot", plot).err
    *findings, curve, _ = map(
        json.loads, mixer(*args, "--format", "json", "--alike", 0.99).out.splitlines()
    )
    assert {one["finding"] for one in findings} >= {"doubtful_label", "unsure"}
    assert not [one for one in findings if one["finding"].startswith("alike")]
    doubt = next(one for one in findings if one["finding"] == "doubtful_label")
    assert not doubt["harmful"]
    assert doubt["looks_like"] in ("cat", "dog")
    assert doubt["label_probability"] < 0.5 < doubt["probability"]
    assert [one["shots"] for one in curve["curve"]] == [1, 5, 10, 25, "all"]


def test_options_that_need_a_model(mixer, data: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("check", data, "--plot", tmp_path / "plot.png")
    assert run.code == 2
    assert "--plot needs -m MODEL" in run.err
    run = mixer("check", data, "-m", "nowhere")
    assert run.code == 1
    assert "nowhere" in run.err
    assert run.out == ""


def test_defaults_are_the_librarys() -> None:
    assert CheckOptions("").near == NEAR
    assert CheckOptions("").alike == ALIKE
