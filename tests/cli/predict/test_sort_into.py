"""--sort-into, --threshold and --only."""

import errno
import json
import os
import shutil
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest
from growth import images_read

from mixer_mlx.cli.predict.sort_into import Sorter, folder_names
from mixer_mlx.results import Prediction, Result
from mixer_mlx.runtime.files import open_regular


def tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def best(mixer, *images: Path) -> list[dict[str, object]]:  # type: ignore[no-untyped-def]
    out = mixer("predict", *images, "-m", "cifar10", "--format", "json", "-k", 1).out
    found = [json.loads(line) for line in out.splitlines()]
    return [result["predictions"][0] for result in found if "predictions" in result]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["cat", "dog"], ["cat", "dog"]),
        (["crane", "tench, Tinca tinca", "crane"], ["crane", "tench, Tinca tinca", "crane-2"]),
        (["Cat", "cat", "cat-1"], ["Cat", "cat-1", "cat-1-2"]),
        (["a/b", "..", "../x", "/", ".hidden"], ["a_b", "class 1", "_x", "_", "hidden"]),
        (["unsure", "x\x1b[2J", "a\nb"], ["unsure-0", "x_x1b[2J", "a_x0ab"]),
        (["\u00e9", "e\u0301", "\udcff", ""], ["\u00e9", "\u00e9-1", "_U0000dcff", "class 3"]),
        (["x" * 500, "x" * 501, "\u732b" * 99], ["x" * 100, "x" * 100 + "-1", "\u732b" * 33]),
    ],
)
def test_folder_names(labels: list[str], names: list[str]) -> None:
    assert folder_names(labels) == names


def test_copies_by_class(mixer, cat: Path, album: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    before = tree(album)
    run = mixer("predict", cat, album, "-m", "cifar10", "--sort-into", tmp_path / "out")
    assert run.code == 1
    assert f"Copied 11 images into {tmp_path}/out." in run.err
    classes = [entry["label"] for entry in best(mixer, cat, album)]
    names = ["cat.png", *(f"{n:02}.png" for n in range(11) if n != 4)]
    there = tree(tmp_path / "out")
    assert set(there) == {f"{label}/{name}" for label, name in zip(classes, names, strict=True)}
    assert there["cat/cat.png"] == cat.read_bytes()
    assert tree(album) == before


def test_nothing_is_overwritten_and_nothing_copied_twice(  # type: ignore[no-untyped-def]
    mixer, cat: Path, tmp_path: Path
) -> None:
    there = tmp_path / "out" / "cat"
    there.mkdir(parents=True)
    (there / "cat.png").write_bytes(b"precious")
    (there / "cat-2.png").symlink_to("nowhere")
    args = ("predict", cat, "-m", "cifar10", "--sort-into", tmp_path / "out")
    mixer(*args)
    assert tree(there) == {"cat.png": b"precious", "cat-3.png": cat.read_bytes()}
    run = mixer(*args)
    assert f"{cat} is already there as {there}/cat-3.png." in run.err
    assert sorted(os.listdir(there)) == ["cat-2.png", "cat-3.png", "cat.png"]
    assert os.stat(there / "cat-3.png").st_mtime == cat.stat().st_mtime


def test_links_lead_to_the_images(  # type: ignore[no-untyped-def]
    mixer, cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cat.parent)
    args = ("predict", cat.name, "-m", "cifar10", "--link", "--sort-into", tmp_path / "out")
    mixer(*args)
    link = tmp_path / "out" / "cat" / "cat.png"
    assert os.readlink(link) == str(cat.resolve())
    assert "already there" in mixer(*args).err
    assert os.listdir(link.parent) == ["cat.png"]


def test_a_dry_run_says_what_would_be_done(  # type: ignore[no-untyped-def]
    mixer, cat: Path, album: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "cat.png"
    other.parent.mkdir()
    other.write_bytes(cat.read_bytes() + b"\n")
    args = ("predict", cat, other, cat, album, "-m", "cifar10", "--sort-into", tmp_path / "out")
    run = mixer(*args, "--dry-run")
    assert not (tmp_path / "out").exists()
    lines = run.out.splitlines()
    assert lines[:2] == [
        f"copy {cat} -> {tmp_path}/out/cat/cat.png",
        f"copy {other} -> {tmp_path}/out/cat/cat-2.png",
    ]
    assert f"{cat} is already there" in run.err
    assert "04.png: The file isn't an image" in run.err
    mixer(*args)
    assert {line.split(" -> ")[1] for line in lines} == {
        f"{tmp_path}/out/{name}" for name in tree(tmp_path / "out")
    }


def test_images_of_an_archive_are_copied_not_linked(  # type: ignore[no-untyped-def]
    mixer, cat: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(cat, "some/cat.png")
    args = ("predict", tmp_path / "a.zip", "-m", "cifar10", "--sort-into", tmp_path / "out")
    assert "Skipped as not files of their own: 1 image" in mixer(*args, "--link").err
    mixer(*args)
    mixer(*args)
    assert tree(tmp_path / "out") == {"cat/cat.png": cat.read_bytes()}


def test_a_folder_is_not_sorted_into_itself(mixer, album: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("predict", album, "-m", "cifar10", "--sort-into", album / "sorted")
    assert run.code == 1
    assert "choose a folder beside it" in run.err
    assert not (album / "sorted").exists()


def test_threshold(mixer, cat: Path, album: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    shares = [entry["probability"] for entry in best(mixer, cat, album)]
    sure = sum(share >= 0.9 for share in shares)
    assert 0 < sure < len(shares)
    args = ("predict", cat, album / "04.png", album, "-m", "cifar10", "--threshold", 0.9)
    table = mixer(*args).out
    assert table.count("  nothing above 90.0%\n") == len(shares) - sure
    assert table.count("%\n") == len(shares)
    found = [json.loads(line) for line in mixer(*args, "--format", "json").out.splitlines()]
    assert [len(result.get("predictions", "error")) for result in found[:2]] == [1, 5]
    assert sum(result.get("predictions") == [] for result in found) == len(shares) - sure
    assert mixer(*args, "--format", "csv").out.count(".png,,,,,\n") == len(shares) - sure
    mixer(*args, "--sort-into", tmp_path / "out")
    assert len(os.listdir(tmp_path / "out" / "unsure")) == len(shares) - sure


@pytest.mark.parametrize("wanted", [["cat"], ["3"], ["CAT", "truck"]])
def test_only(mixer, cat: Path, album: Path, tmp_path: Path, wanted: list[str]) -> None:  # type: ignore[no-untyped-def]
    indices = {"cat": {3}, "3": {3}, "CAT": {3, 9}}[wanted[0]]
    names = [cat, *(album / f"{n:02}.png" for n in range(11) if n != 4)]
    expected = [
        str(name)
        for name, entry in zip(names, best(mixer, *names), strict=True)
        if entry["index"] in indices
    ]
    only = [part for name in wanted for part in ("--only", name)]
    args = ("predict", *names, "-m", "cifar10", *only, "--sort-into", tmp_path / "out")
    run = mixer(*args, "--format", "json")
    assert [json.loads(line)["image"] for line in run.out.splitlines()] == expected
    assert len(tree(tmp_path / "out")) == len(expected) >= 1
    assert run.code == 0


@pytest.mark.parametrize("text", ["ct", "10", "-1", ""])
def test_no_such_class(mixer, cat: Path, text: str) -> None:  # type: ignore[no-untyped-def]
    run = mixer("predict", cat, "-m", "cifar10", f"--only={text}")
    assert run.code == 1
    assert "an index from 0 to 9" in run.err
    assert ("cat" in run.err) == (text == "ct")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--link"], "--sort-into"),
        (["--dry-run"], "--sort-into"),
        (["--dry-run", "--sort-into", "x", "-o", "y.csv"], "-o"),
        (["--resume"], "-o"),
        (["--resume", "-o", "x.txt"], "json and csv"),
        (["--resume", "-o", "x.parquet"], "json and csv"),
        (["--resume", "-o", "x.csv", "--only", "cat"], "--only"),
        (["--format", "parquet"], "-o"),
        (["--threshold", "2"], "--threshold"),
    ],
)
def test_options_that_do_not_fit(mixer, cat: Path, args: list[str], says: str) -> None:  # type: ignore[no-untyped-def]
    run = mixer("predict", cat, *args)
    assert run.code == 2
    assert says in run.err


def test_content_and_times_are_copied_and_no_flags(  # type: ignore[no-untyped-def]
    mixer, cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A locked file's flags would lock the copy, too, and SMB disks refuse them."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for name in ("copystat", "copymode"):
        monkeypatch.setattr(shutil, name, refuse)
    locked = tmp_path / "locked.png"
    locked.write_bytes(cat.read_bytes())
    os.utime(locked, (10**9, 10**9 + 7))
    locked.chmod(0o444)
    assert mixer("predict", locked, "-m", "cifar10", "--sort-into", tmp_path / "out").code == 0
    copy = tmp_path / "out" / "cat" / "locked.png"
    assert copy.read_bytes() == cat.read_bytes()
    assert copy.stat().st_mtime == 10**9 + 7
    assert os.access(copy, os.W_OK)


def test_an_image_that_cannot_be_copied_is_reported_and_the_others_are_sorted(  # type: ignore[no-untyped-def]
    mixer, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfileobj = shutil.copyfileobj
    seventh = str(album / "07.png")

    def fail_on_one(source: BinaryIO, target: BinaryIO, size: int) -> None:
        if os.path.samestat(os.fstat(source.fileno()), os.stat(seventh)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        copyfileobj(source, target, size)

    monkeypatch.setattr(shutil, "copyfileobj", fail_on_one)
    (album / "04.png").unlink()
    run = mixer("predict", album, "-m", "cifar10", "--sort-into", tmp_path / "out")
    assert run.code == 1
    assert f"{album}/07.png can't be put into {tmp_path}/out/" in run.err
    assert "1 of 10 images can't be sorted." in run.err
    assert len(tree(tmp_path / "out")) == 9


def test_a_full_disk_ends_the_job(  # type: ignore[no-untyped-def]
    mixer, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    run = mixer("predict", album, "-m", "cifar10", "--sort-into", tmp_path / "out")
    assert run.code == 1
    assert run.err.count("No space left on device") == 1


def test_a_dry_run_knows_names_that_the_disk_takes_for_one(  # type: ignore[no-untyped-def]
    mixer, cat: Path, tmp_path: Path
) -> None:
    """Where an existing name is found in the other case, too, the disk ignores case."""
    (tmp_path / "Probe").touch()
    with suppress(FileExistsError):  # on a disk that really ignores case
        os.link(tmp_path / "Probe", tmp_path / "pROBE")
    names = ["Caf\u00e9.png", "cafe\u0301.png", "other.png"]
    photos = [tmp_path / str(number) / name for number, name in enumerate(names)]
    for number, path in enumerate(photos):
        path.parent.mkdir()
        path.write_bytes(cat.read_bytes() + bytes([number]))
    args = ("predict", *photos, "-m", "cifar10", "--dry-run", "--sort-into", tmp_path / "out")
    targets = [line.rsplit("/", 1)[1] for line in mixer(*args).out.splitlines()]
    assert targets == ["Caf\u00e9.png", "cafe\u0301-2.png", "other.png"]
    (tmp_path / "pROBE").unlink()
    targets = [line.rsplit("/", 1)[1] for line in mixer(*args).out.splitlines()]
    assert (targets == names) == (sys.platform != "darwin")


@pytest.mark.parametrize("how", [{}, {"link": True}])
def test_images_of_one_name_and_size_are_read_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, bool]
) -> None:
    """Not once for each of the others; also in a second run, which finds all of them there."""
    reads = dict.fromkeys((50, 100, 200), 0)
    for count in reads:
        paths = [tmp_path / f"{count}" / f"{n}" / "image.jpg" for n in range(count)]
        for path in paths:
            path.parent.mkdir(parents=True)
            path.write_text(f"{path.parent.name:>9}")

        def opened(path: Path, count: int = count) -> BinaryIO:
            reads[count] += 1
            return open_regular(path)

        monkeypatch.setattr("mixer_mlx.cli.predict.sort_into.open_regular", opened)
        for _ in range(2):
            sorter = Sorter(tmp_path / f"out{count}", ["a"], quiet=True, **how)
            for path in paths:
                sorter.add(Result(path, (Prediction(0, "a", 1.0),)))
        assert len(os.listdir(tmp_path / f"out{count}" / "a")) == count
    assert max(reads[n] / n for n in reads) <= 1.05 * min(reads[n] / n for n in reads) <= 10


def test_a_plan_for_images_of_one_name_and_size_reads_each_a_few_times(tmp_path: Path) -> None:
    for count in (1000, 2000, 4000):
        assert max(images_read(count, tmp_path / "out").values()) <= 2


def test_a_link_beside_a_file_of_its_name(mixer, cat: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    there = tmp_path / "out" / "cat"
    there.mkdir(parents=True)
    (there / "cat.png").write_bytes(b"precious")
    run = mixer("predict", cat, "-m", "cifar10", "--link", "--sort-into", tmp_path / "out")
    assert run.code == 0
    assert os.readlink(there / "cat-2.png") == str(cat.resolve())


def test_two_images_of_the_longest_name(tmp_path: Path) -> None:
    name = "y" * 251 + ".png"
    sorter = Sorter(tmp_path / "out", ["a"], quiet=True)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(folder)
        sorter.add(Result(tmp_path / folder / name, (Prediction(0, "a", 1.0),)))
    sorted_into = {path.name: path.read_text() for path in (tmp_path / "out" / "a").iterdir()}
    assert sorted_into.pop(name) == "one"
    (other,) = sorted_into
    assert (other[-6:], len(other), sorted_into[other]) == ("-2.png", 255, "two")
