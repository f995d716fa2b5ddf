import csv
import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from mixer_mlx.checkpoint import read_info

ARGS = ("-m", "cifar10", "--dtype", "float32")


def test_a_table_json_and_csv(mixer, photos: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("few-shot", photos, *ARGS, "--shots", "2,1,all", "--seeds", 2, "--format", "json")
    assert run.code == 0
    rows = list(map(json.loads, run.out.splitlines()))
    assert [row["shots"] for row in rows] == [1, 2, "all"]
    assert [row["images"] for row in rows] == [2, 4, 12]  # two of eight are held out
    assert list(rows[0]) == [
        *("shots", "images", "accuracy", "accuracy_low", "accuracy_high"),
        *("spread", "l2", "accuracies"),
    ]
    assert [len(row["accuracies"]) for row in rows] == [2, 2, 1]
    assert rows[2]["accuracy"] == 1
    assert rows[0]["l2"] == 1024
    run = mixer("few-shot", photos, *ARGS, "--shots", 1, "--l2", 2, "--format", "csv", "-q")
    assert run.err == ""
    assert _rows(run.out)[0]["l2"] == "2.0"
    table = mixer("few-shot", photos, *ARGS, "-q").out  # as many of the defaults as there are
    assert [line.split()[:2] for line in table.splitlines()[1:]] == [["1", "2"], ["5", "10"]]


def test_a_saved_classifier_and_a_plot(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model, plot = tmp_path / "model", tmp_path / "plot.png"
    args = ("few-shot", photos, *ARGS, "--shots", 5, "--save", model, "--plot", plot)
    run = mixer(*args)
    assert run.code == 0
    assert "Wrote" in run.err
    assert read_info(model).labels == ("blue", "red")
    with Image.open(plot) as image:
        assert image.size == (760, 420)
    run = mixer("predict", photos, "-m", model, "-k", 1, "--format", "csv")
    labels = {row["image"].split("/")[-2]: row["label"] for row in _rows(run.out)}
    assert labels == {"red": "red", "blue": "blue"}
    assert "--force" in mixer(*args).err
    assert mixer(*args, "--force").code == 0


def test_features_of_a_file(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    made = tmp_path / "f.npz"
    assert mixer("embed", photos, *ARGS, "-o", made).code == 0
    args = ("few-shot", photos, "--shots", "1,5", "--format", "json")
    one = mixer(*args, "--features", made)
    assert one.code == 0
    assert one.out == mixer(*args, *ARGS).out
    saved = ("--save", tmp_path / "model", *ARGS, "-q")
    assert mixer(*args, "--features", made, *saved).code == 0
    for option, says in (("--normalize", "normalised"), ("--layer=stem", "not of pre-logits")):
        mixer("embed", photos, *ARGS, option, "-o", made, "--force")
        run = mixer(*args, "--features", made, *saved, "--force")
        assert run.code == 1
        assert says in run.err


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--shots", "0"), 2, "Expected numbers of images like 1,5,10, or all"),
        (("--shots", "1,x"), 2, "Expected numbers of images like 1,5,10, or all"),
        (("--shots", "9"), 1, "fewer than 9 shots; ask for 6 or fewer."),
        (("--l2", "0"), 1, "it must be above 0"),
        (("--features", "missing.npz"), 1, "missing.npz can't be read"),
        (("--plot", "plot.jpg"), 1, "call it plot.png"),
    ],
)
def test_what_can_not_work(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path, args: tuple[str, ...], code: int, says: str
) -> None:
    run = mixer("few-shot", photos, *ARGS, *args, "--save", tmp_path / "model", "-q")
    assert run.code == code
    assert says in run.err
    assert os.listdir(tmp_path) == ["photos"]


def test_an_unreadable_image_is_reported(mixer, photos: Path) -> None:  # type: ignore[no-untyped-def]
    (photos / "red" / "0.png").write_text("text")
    run = mixer("few-shot", photos, *ARGS, "--shots", 1)
    assert run.code == 1
    assert run.err.count("0.png: ") == 1
    assert run.err.endswith("1 of 16 images can't be read.\n")
    assert run.out


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))
