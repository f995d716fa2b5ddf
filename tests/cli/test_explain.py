import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixer_mlx import ConfigError
from mixer_mlx.labels import distinct, find_label, read_list


def test_each_kind_of_file(mixer, cat: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    base = ("explain", cat, "-m", "cifar10", "--method", "gradient", "--format", "json")
    run = mixer(*base, "-o", tmp_path / "why.png")
    assert run.code == 0, run.err
    record = json.loads(run.out)
    assert record["label"] == "cat"
    assert record["insertion"] > record["random_insertion"]
    with Image.open(tmp_path / "why.png") as image:
        assert image.format == "PNG"
    assert mixer(*base, "-o", tmp_path / "why.npy", "--class", "Dog").code == 0
    values = np.load(tmp_path / "why.npy")
    assert (values.shape, values.dtype) == ((8, 8), np.float32)
    run = mixer(*base, "-o", tmp_path / "why.json", "--class", "5")
    found = json.loads((tmp_path / "why.json").read_text())
    assert found["label"] == "dog"
    assert np.array(found["map"]) == pytest.approx(values)
    assert "--force" in mixer(*base, "-o", tmp_path / "why.json").err


def test_what_cannot_be_done_leaves_nothing(mixer, cat: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("explain", cat, "-m", "cifar10", "-o", tmp_path / "why.gif")
    assert run.code == 1
    assert "why.png" in run.err
    run = mixer("explain", cat, "-m", "cifar10", "-o", tmp_path / "why.png", "--class", "cta")
    assert run.code == 1
    assert "did you mean cat" in run.err
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    assert mixer("explain", bad, "-m", "cifar10", "-o", tmp_path / "why.png").code == 1
    assert list(tmp_path.iterdir()) == [bad]


def test_names_of_classes() -> None:
    labels = read_list("imagenet1k")
    assert find_label(labels, "tinca tinca") == 0
    assert find_label(labels, "n01440764") == 0
    assert find_label(labels, "517") == 517
    with pytest.raises(ConfigError, match=r"134 .*517"):
        find_label(labels, "crane")
    shown = distinct(labels)
    assert (shown[134], shown[517]) == ("crane (134)", "crane (517)")
    assert len(set(shown)) == 1000
