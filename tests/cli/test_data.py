"""DATA of `evaluate` and `fine-tune` beyond folders, by the commands."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hub_server import HubServer, Repo, serving
from PIL import Image

hub = pytest.fixture(serving)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """train/ and test/ with four cats and four dogs each; one of the test images is broken."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(4):
                image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
                image.save(tmp_path / "photos" / part / name / f"{i}.png")
    (tmp_path / "photos" / "test" / "dog" / "3.png").write_text("no image")
    return tmp_path / "photos"


@pytest.fixture
def archive(photos: Path) -> Path:
    path = photos.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as file:
        for image in photos.rglob("*.png"):
            file.write(image, image.relative_to(photos.parent))
    return path


def test_evaluate_an_archive(mixer, photos: Path, archive: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("evaluate", archive, "-m", "cifar10", "--format", "json")
    assert run.code == 1
    assert f"{archive}/photos/test/dog/3.png: " in run.err
    found = json.loads(run.out)
    assert (found["split"], found["images"], found["unreadable"]) == ("test", 7, 1)
    plain = json.loads(mixer("evaluate", photos, "-m", "cifar10", "--format", "json").out)
    assert (plain["loss"], plain["top1"]) == (found["loss"], found["top1"])
    train = mixer("evaluate", archive, "-m", "cifar10", "--format", "json", "--split", "train")
    assert (train.code, json.loads(train.out)["images"]) == (0, 8)


def test_fine_tune_an_archive_with_a_test_part(mixer, archive: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    command = ("fine-tune", archive, "-m", "cifar10", "-o", tmp_path / "run", "--steps", 2, "-b", 4)
    refused = mixer(*command)
    assert refused.code == 1
    assert "--val-split test" in refused.err
    done = mixer(*command, "--val-split", "test")
    assert done.code == 0, done.err
    assert "8 training and 8 validation images of 2 classes" in done.err
    assert "photos.zip/photos/test/dog/3.png: " in done.err
    archive.write_bytes(archive.read_bytes().replace(b"0.png", b"9.png"))
    changed = mixer(*command, "--val-split", "test", "--resume")
    assert "images changed since the run" in changed.err


def test_fine_tune_from_the_hub(mixer, hub: HubServer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    images = sorted((photos / "train").rglob("*.png"))
    rows = {
        "photo": [path.read_bytes() for path in images],
        "kind": [path.parent.name for path in images],
    }
    write_table(pyarrow.table(rows | {"note": rows["kind"]}), tmp_path / "train.parquet")
    content = (tmp_path / "train.parquet").read_bytes()
    hub.repos["datasets/me/pets"] = Repo({"train.parquet": content})
    command = ("fine-tune", "hf://datasets/me/pets", "-m", "cifar10", "--steps", 1, "-b", 4)
    refused = mixer(*command, "-o", tmp_path / "run")
    assert refused.code == 1
    assert "kind, note; choose one with --label-column" in refused.err
    done = mixer(*command, "-o", tmp_path / "run", "--label-column", "kind")
    assert done.code == 0, done.err
    assert "6 training and 2 validation images of 2 classes" in done.err
