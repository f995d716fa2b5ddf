"""`mixer embed`: the stream, order, error and resume rules of predict, in four formats."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from mixer_mlx import load
from mixer_mlx.errors import CheckpointError
from mixer_mlx.features.embed import Embedder
from mixer_mlx.features.store import Vectors, read

ARGS = ("-m", "cifar10", "-b", 3, "--dtype", "float32")
SUFFIXES = ("npz", "npy", "jsonl", "parquet")


@pytest.fixture
def break_off(mixer, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Run a command whose model fails after so many images."""

    def run(after: int, *args: object):  # type: ignore[no-untyped-def]
        def failing(*args, **options):  # type: ignore[no-untyped-def]
            yield from islice(stream(*args, **options), after)
            raise CheckpointError("The model broke.")

        stream = Embedder.stream
        with monkeypatch.context() as patch:
            patch.setattr(Embedder, "stream", failing)
            return mixer(*args)

    return run


@pytest.fixture
def vectors(album: Path) -> dict[str, np.ndarray]:
    """From Python, one by one."""
    classifier = load("cifar10", dtype="float32")
    found = classifier.embed(iter(map(str, sorted(album.iterdir()))), batch_size=3)
    return {str(name): vector for name, vector, error in found if vector is not None}


def test_each_format_has_the_names_beside_the_vectors(  # type: ignore[no-untyped-def]
    mixer, album: Path, vectors: dict[str, np.ndarray], tmp_path: Path
) -> None:
    for suffix in SUFFIXES[:3]:
        run = mixer("embed", album, *ARGS, "-o", tmp_path / f"f.{suffix}")
        assert run.code == 1
        assert run.err.endswith("1 of 11 images can't be read.\n")
        assert ("04.png: " in run.err) == (suffix != "jsonl")
    with np.load(tmp_path / "f.npz") as arrays:  # as anybody reads it
        assert arrays["names"].tolist() == list(vectors)
        assert np.array_equal(arrays["vectors"], np.stack(list(vectors.values())))
    assert np.array_equal(np.load(tmp_path / "f.npy"), np.stack(list(vectors.values())))
    assert json.loads((tmp_path / "f.npy.json").read_text())["images"] == list(vectors)
    for suffix in ("npz", "npy"):
        found = read(tmp_path / f"f.{suffix}")
        assert isinstance(found.array, np.memmap)
        assert found.names == list(vectors)
        assert found.origin is not None
        assert (found.origin.model, found.origin.layer) == ("cifar10", "pre-logits")
    lines = list(map(json.loads, (tmp_path / "f.jsonl").read_text().splitlines()))
    assert [line["image"] for line in lines] == [str(path) for path in sorted(album.iterdir())]
    assert list(lines[4]) == ["image", "error"]
    assert np.array_equal(np.float32(lines[10]["vector"]), list(vectors.values())[-1])
    assert mixer("embed", album, *ARGS).out == (tmp_path / "f.jsonl").read_text()


def test_parquet(mixer, album: Path, vectors: dict[str, np.ndarray], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    parquet = pytest.importorskip("pyarrow.parquet", reason="NOT RUN: needs the extra parquet")
    assert mixer("embed", album, *ARGS, "-o", tmp_path / "f.parquet").code == 1
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["image", "vector", "error"]
    assert table.schema.field("vector").type.list_size == 128
    good = [row for row in table.to_pylist() if row["error"] is None]
    assert [row["image"] for row in good] == list(vectors)
    assert np.array_equal(np.float32([row["vector"] for row in good]), [*vectors.values()])
    assert len(table) == 11


def test_layer_pool_normalize_and_half(mixer, cat: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "f.npz"
    args = ("--layer", "blocks.2", "--pool", "none", "--normalize", "--half")
    assert mixer("embed", cat, *ARGS, *args, "-o", out).code == 0
    ours = load("cifar10", dtype="float32").embed(
        [cat], layer="blocks.2", pool="none", normalize=True
    )
    found = read(out).array
    assert (found.dtype, found.shape) == (np.float16, (1, 64, 128))
    assert np.array_equal(found, ours.astype(np.float16))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_end_result_is_that_of_an_undisturbed_run(  # type: ignore[no-untyped-def]
    mixer, break_off, album: Path, tmp_path: Path, suffix: str
) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="NOT RUN: needs the extra parquet")
    args = ("embed", album, album / "02.png", album / "04.png", *ARGS)
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    part = tmp_path / f"out.{suffix}.part"
    assert mixer(*args, "-o", whole).code == 1
    run = break_off(8, *args, "-o", out)
    assert run.err.endswith(f"are in {part}; run the same command with --resume to continue.\n")
    log, settings = part.read_bytes(), Path(f"{part}.json").read_bytes()
    for cut in (0, 9, 200, len(log) - 1, len(log)) if suffix == "npz" else (len(log) - 1,):
        part.write_bytes(log[:cut])
        Path(f"{part}.json").write_bytes(settings)
        run = mixer(*args, "-o", out, "--resume", "--force")
        assert run.code == 1
        assert run.err.endswith("2 of 13 images can't be read.\n")
        assert out.read_bytes() == whole.read_bytes()
        assert not part.exists()
    left = {"album", out.name, whole.name}
    assert set(os.listdir(tmp_path)) - {"out.npy.json", "whole.npy.json"} == left


def test_whole_batches_are_not_computed_again(  # type: ignore[no-untyped-def]
    mixer, break_off, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("embed", album, *ARGS, "-o", tmp_path / "f.npz")
    break_off(8, *args)
    given = []
    stream = Embedder.stream

    def watched(self, images, **options):  # type: ignore[no-untyped-def]
        given.extend(images := list(images))
        return stream(self, images, **options)

    monkeypatch.setattr(Embedder, "stream", watched)
    mixer(*args, "--resume")
    assert [Path(str(name)).name for name in given] == [f"{n:02}.png" for n in range(6, 11)]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("--layer", "stem"), "was begun with layer pre-logits, not stem"),
        (("--half",), "was begun with half False, not True"),
        (("-b", 4), "was begun with batch size 3, not 4"),
    ],
)
def test_another_question_is_refused(  # type: ignore[no-untyped-def]
    mixer, break_off, album: Path, tmp_path: Path, changed: tuple[object, ...], says: str
) -> None:
    args = ("embed", album, *ARGS, "-o", tmp_path / "f.npz")
    break_off(4, *args)
    before = (tmp_path / "f.npz.part").read_bytes()
    run = mixer(*args, *changed, "--resume")
    assert run.code == 1
    assert says in run.err
    assert (tmp_path / "f.npz.part").read_bytes() == before


def test_a_killed_process_loses_nothing(mixer, cat: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out, part = tmp_path / "out.npz", tmp_path / "out.npz.part"
    command = [sys.executable, "-m", "mixer_mlx", "embed", "-m", "cifar10", "--dtype", "float32"]
    command += ["-b", "1", "-o", str(out)]
    with subprocess.Popen([*command, "-"], stdin=-1) as run:
        assert run.stdin is not None
        run.stdin.write(f"{cat}\n".encode() * 9)
        run.stdin.flush()  # and it waits for more
        while not part.exists() or part.read_bytes().count(b'{"image"') < 3:
            assert run.poll() is None
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -9
    args = [*command[3:-2], *[cat] * 12]
    assert mixer(*args, "-o", out, "--resume").code == 0
    assert mixer(*args, "-o", tmp_path / "whole.npz").code == 0
    assert out.read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert len(read(out).names) == 12


def test_what_can_not_work_is_a_sentence(mixer, cat: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def says(*args: object) -> tuple[int, str]:
        run = mixer("embed", *args)
        return run.code, run.err

    code, text = says(cat, "-m", "cifar10", "-o", tmp_path / "f.txt")
    assert (code, "ends in .npz, .npy, .jsonl or .parquet" in text) == (2, True)
    code, text = says(cat, "-m", "cifar10", "--layer", "blocks.8")
    assert (code, "expected stem, blocks.0 to blocks.7, or pre-logits" in text) == (1, True)
    (tmp_path / "f.npy.json").write_text("mine")
    code, text = says(cat, "-m", "cifar10", "-o", tmp_path / "f.npy")
    assert (code, "--force" in text) == (1, True)
    assert (tmp_path / "f.npy.json").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    code, text = says(tmp_path / "empty", *ARGS, "-o", tmp_path / "f.npz")
    assert (code, text.startswith("Error: No images found")) == (1, True)
    assert sorted(os.listdir(tmp_path)) == ["empty", "f.npy.json"]


def test_names_that_are_no_text_survive(  # type: ignore[no-untyped-def]
    mixer, cat: Path, tmp_path: Path, odd_name: str
) -> None:
    name = tmp_path / f"{odd_name}\n.png"
    name.write_bytes(cat.read_bytes())
    for suffix in ("npz", "npy"):
        assert mixer("embed", name, *ARGS, "-o", tmp_path / f"f.{suffix}").code == 0
        found: Vectors = read(tmp_path / f"f.{suffix}")
        assert found.names == [str(name)]
