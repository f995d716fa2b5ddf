"""`mixer nearest`: the images of one colour are each other's neighbours."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixer_mlx.errors import CheckpointError
from mixer_mlx.features import index
from mixer_mlx.features.embed import Embedder

ARGS = ("-m", "cifar10", "--dtype", "float32")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all images that were embedded."""
    names: list[str] = []
    stream = Embedder.stream

    def watched(self, images, **options):  # type: ignore[no-untyped-def]
        for one in stream(self, images, **options):
            names.append(Path(str(one.image)).name)
            yield one

    monkeypatch.setattr(Embedder, "stream", watched)
    return names


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXER_MLX_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_a_folder_and_a_file_give_the_same(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    query = photos / "red" / "3.png"
    run = mixer("nearest", query, "--in", photos, *ARGS, "-k", 7, "--format", "json")
    assert (run.code, run.err) == (0, "")
    found = json.loads(run.out)
    assert found["image"] == str(query)
    names = [one["image"] for one in found["neighbours"]]
    assert sorted(names) == [f"{photos}/red/{i}.png" for i in (0, 1, 2, 4, 5, 6, 7)]
    values = [one["similarity"] for one in found["neighbours"]]
    assert values == sorted(values, reverse=True)
    mixer("embed", photos, *ARGS, "-o", tmp_path / "f.npz")
    for model in ((), ARGS):  # the model is that of the file
        run = mixer("nearest", query, "--in", tmp_path / "f.npz", *model, "-k", 7)
        lines = run.out.splitlines()
        assert lines[0] == str(query)
        assert [line.split()[1] for line in lines[1:]] == names
        assert [float(line.split()[0]) for line in lines[1:]] == pytest.approx(values, abs=1e-3)


def test_only_changes_are_computed(  # type: ignore[no-untyped-def]
    mixer, photos: Path, cat: Path, computed: list[str]
) -> None:
    def search() -> list[str]:
        computed.clear()
        run = mixer("nearest", cat, "--in", photos, *ARGS, "-k", 99, "--format", "csv", "-q")
        assert run.code == 0
        return sorted(row["neighbour"] for row in csv.DictReader(io.StringIO(run.out)))

    everything = sorted(f"{photos}/{c}/{i}.png" for c in ("red", "blue") for i in range(8))
    assert search() == everything
    assert len(computed) == 17
    assert search() == everything
    assert computed == ["cat.png"]
    (photos / "red" / "0.png").unlink()
    shutil.copy(photos / "red" / "1.png", photos / "red" / "new.png")
    os.utime(photos / "red" / "2.png", ns=(0, 0))
    expected = sorted({*everything, f"{photos}/red/new.png"} - {f"{photos}/red/0.png"})
    assert search() == expected
    assert sorted(computed) == ["2.png", "cat.png", "new.png"]
    computed.clear()
    mixer("nearest", cat, "--in", photos, "-m", "cifar10", "--dtype", "float16", "-q")
    assert computed == ["cat.png"]  # the same model


def test_the_cache_lists_and_removes_indexes(  # type: ignore[no-untyped-def]
    mixer, photos: Path, cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXER_MLX_CACHE", str(tmp_path / "cache"))
    for folder in (photos / "red", photos / "blue"):
        assert mixer("nearest", cat, "--in", folder, *ARGS, "-q").code == 0
    rows = [
        json.loads(line) for line in mixer("cache", "list", "--format", "json").out.splitlines()
    ]
    assert [(row["kind"], row["source"]) for row in rows] == [
        ("index", str(photos / "blue")),
        ("index", str(photos / "red")),
    ]
    monkeypatch.chdir(photos)
    assert mixer("cache", "remove", "green").code == 1
    assert mixer("cache", "remove", "red").err == f"Removed the index of {photos}/red.\n"
    assert not Path(rows[1]["path"]).exists()
    assert str(photos / "blue") in mixer("cache", "list").out
    assert "blue" in mixer("cache", "remove", "--all").err
    assert "empty" in mixer("cache", "list").err


def test_an_index_is_written_as_it_grows(  # type: ignore[no-untyped-def]
    mixer, photos: Path, cat: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a call that is killed has written is there for the next."""
    monkeypatch.setattr(index, "FIRST", 3)
    written = index.write_npz
    sizes = []

    def dies(target: Path, names: list[str], *rest: object) -> None:
        if len(names) > 6:
            raise CheckpointError("Killed.")
        sizes.append(len(names))
        written(target, names, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(index, "write_npz", dies)
        assert mixer("nearest", cat, "--in", photos, *ARGS, "-q").code == 1
    assert sizes == [3, 6]
    computed.clear()
    args = ("nearest", cat, "--in", photos, *ARGS, "-q", "-k", 16, "--format", "csv")
    run = mixer(*args)
    assert len(computed) == 16 - 6 + 1
    assert len(run.out.splitlines()) == 17
    assert mixer(*args).out == run.out


def test_what_an_interrupted_call_has_computed_is_kept(  # type: ignore[no-untyped-def]
    mixer, photos: Path, cat: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Embedder.stream

    def interrupted(self, images, **options):  # type: ignore[no-untyped-def]
        for number, one in enumerate(watched(self, images, **options)):
            if number == 9:
                raise CheckpointError("The model broke.")
            yield one

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "stream", interrupted)
        run = mixer("nearest", cat, "--in", photos, *ARGS, "-q")
        assert run.err == "Error: The model broke.\n"
    computed.clear()
    assert mixer("nearest", cat, "--in", photos, *ARGS, "-q").code == 0
    assert len(computed) == 16 - 9 + 1


def test_a_sheet(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    sheet = tmp_path / "sheet.png"
    args = ("nearest", photos / "red", "--in", photos, *ARGS, "--sheet", sheet)
    assert mixer(*args).code == 0
    with Image.open(sheet) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (16 + 36 + 8 * 222, 10 * 176 + 16, 3)
    assert "--force" in mixer(*args).err


def test_what_can_not_work(mixer, photos: Path, cat: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def says(*args: object) -> str:
        run = mixer("nearest", cat, *args, *ARGS, "-q")
        assert run.code == 1
        return str(run.err)

    assert "doesn't exist; expected a folder" in says("--in", tmp_path / "missing")
    assert "isn't a file of vectors" in says("--in", cat)
    (tmp_path / "empty").mkdir()
    assert "holds no images" in says("--in", tmp_path / "empty")
    made = tmp_path / "f.npz"
    mixer("embed", photos, *ARGS, "--pool", "none", "-o", made)
    assert "make it with --pool mean" in says("--in", made)
    assert mixer("few-shot", photos, *ARGS, "--shots", 1, "--save", tmp_path / "m").code == 0
    mixer("embed", photos, *ARGS, "-o", made, "--force")
    run = mixer("nearest", cat, "--in", made, "-m", tmp_path / "m", "-q")
    assert run.code == 0  # its head is another, its features are the same
    np.save(tmp_path / "g.npy", np.zeros((2, 5), np.float32))
    assert "the model's are (128,)" in says("--in", tmp_path / "g.npy")
    with np.load(made) as arrays:
        origin = str(arrays["origin"]).replace('"fingerprint": "', '"fingerprint": "0')
        np.savez(made, names=arrays["names"], vectors=arrays["vectors"], origin=origin)
    assert "was made with another model, cifar10" in says("--in", made)


def test_a_query_that_can_not_be_read(mixer, photos: Path, cat: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    bad = tmp_path / "bad.png"
    bad.write_text("text")
    run = mixer("nearest", bad, cat, "--in", photos, *ARGS, "-k", 1, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(run.out)))
    assert run.code == 1
    assert (rows[0]["image"], bool(rows[0]["error"])) == (str(bad), True)
    assert (rows[1]["image"], rows[1]["rank"]) == (str(cat), "1")
    assert run.err.endswith("1 of 2 images can't be read.\n")
