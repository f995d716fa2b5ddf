"""How a dataset's folders are taken: as classes, as splits, or refused; and what is left out."""

import io
import os
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from data.conftest import png

from mixer_mlx import ConfigError
from mixer_mlx.analysis.check import read_all_splits
from mixer_mlx.data.dataset import family
from mixer_mlx.data.read import read_split, read_splits
from mixer_mlx.images.find import find_images


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def images(root: Path, *folders: str, count: int = 2) -> Path:
    return touch(root, *(f"{folder}/{i}.jpg" for folder in folders for i in range(count)))


def said(path: Path, **options: str) -> list[str]:
    lines: list[str] = []
    read_splits(path, say=lines.append, **options)  # type: ignore[arg-type]
    return lines


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[(name, "train") for name in ("Training Data", "seg_train", "train2017", "TrainSet")],
        *[(name, "val") for name in ("eval", "VALIDATION", "my-dev", "valid_images", "val.1")],
        *[(name, "test") for name in ("Testing Data", "test_set1", "testset")],
        *[(name, None) for name in ("trainer", "contest", "train_test", "valley", "device", "3")],
    ],
)
def test_words_name_a_split(name: str, expected: str | None) -> None:
    assert family(name) == expected


@pytest.mark.parametrize(
    ("train", "val"),
    [("Training Data", "Testing Data"), ("seg_train", "seg_test"), ("training", "eval")],
)
def test_splits_by_other_names(train: str, val: str, tmp_path: Path) -> None:
    images(tmp_path, f"{train}/a", f"{train}/b", count=4)
    images(tmp_path, f"{val}/a", f"{val}/b")
    assert [len(some) for some in read_splits(tmp_path, val_split=val)] == [8, 4]
    assert read_split(tmp_path)[1] == val
    assert list(read_all_splits(tmp_path)) == [train, val]


def test_images_without_labels_beside_splits_are_left_out(tmp_path: Path) -> None:
    images(tmp_path, "train/cat", "train/dog", "test", "seg_pred", count=5)
    train, val = read_splits(tmp_path)
    assert train.classes == ("cat", "dog")
    assert len(train) + len(val) == 10
    first, second = said(tmp_path)
    assert first.endswith("training on train, 20% of each class held out for validation.")
    assert second == "Left out: seg_pred (no classes), test (no classes)."
    assert list(read_all_splits(tmp_path)) == ["train"]


def test_a_split_may_be_wrapped_in_its_own_name(tmp_path: Path) -> None:
    inner = [f"seg_{s}/seg_{s}/{c}" for s in ("train", "test") for c in ("a", "b")]
    images(tmp_path, *inner, "seg_pred/seg_pred")
    train, val = read_splits(tmp_path, val_split="seg_test")
    assert train.classes == val.classes == ("a", "b")
    assert "Left out: seg_pred (no" in said(tmp_path, val_split="test")[1]


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (["train", "test"], r"one folder per class in the splits .*test, train hold images"),
        (
            ["fold1/a", "fold1/b", "fold2/a", "fold2/b"],
            "train_split='fold1'` and `val_split=",
        ),
        (["a/train", "a/val", "b/train", "b/val"], "Expected splits above classes"),
        (["train/cat", "train/dog", "fox"], "only splits .* such as train, .*holds fox, too"),
        (["test/cat", "test/dog", "cat", "dog"], "only splits .* such as test, .*holds cat, dog"),
        (["train_a/x", "train_a/y", "train_b/x", "train_b/y"], "several train splits, train_a"),
        (["train/a", "train/b", "holdout/a", "holdout/b"], "`val_split='holdout'`"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(
    folders: Sequence[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_splits(images(tmp_path, *folders))


def test_folders_chosen_as_splits(tmp_path: Path) -> None:
    images(tmp_path, "fold1/a", "fold1/b", "fold2/a", "fold2/b")
    train, val = read_splits(tmp_path, train_split="fold1", val_split="fold2")
    assert (len(train), len(val)) == (4, 4)


def test_subfolders_of_classes_are_no_splits(tmp_path: Path) -> None:
    images(tmp_path, "cat/images", "dog/images", "pets/old", "pets/new")
    assert read_split(tmp_path)[0].classes == ("cat", "dog", "pets")


def test_one_folder_around_is_looked_through(tmp_path: Path) -> None:
    images(tmp_path, "photos/a", "photos/b")
    assert read_split(tmp_path)[0].classes == ("a", "b")


def test_clutter_is_passed_over_in_silence(tmp_path: Path) -> None:
    images(tmp_path, "a", "b", "__MACOSX/a", "@eaDir/0.jpg", "a/@eaDir/0.jpg")
    images(tmp_path, "b/.ipynb_checkpoints", ".git")
    touch(tmp_path, "a/Thumbs.db", "a/.DS_Store", "b/._0.jpg", "b/desktop.ini")
    assert read_split(tmp_path)[0].counts() == {"a": 2, "b": 2}
    assert len(said(tmp_path)) == 1
    assert len(list(find_images([tmp_path]))) == 4


SKIPPED = (
    "Skipped: 2 hidden files, 1 image outside of the class folders, "
    "4 with other suffixes (.ppm, .txt), 2 without a suffix."
)


def test_what_is_skipped_is_counted_by_cause(tmp_path: Path) -> None:
    data = images(tmp_path / "data", "a", "b")
    names = [*(f"a/{i}.ppm" for i in range(3)), "b/x.txt", "a/one", "b/two"]
    touch(data, *names, "a/.x.jpg", "b/.old/1.jpg", "loose.jpg", "README.md")
    assert said(data)[1] == SKIPPED
    (data / "README.md").unlink()
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(data.rglob("*")):
            archive.write(file, file.relative_to(data))
    assert said(path)[1] == SKIPPED


def test_links_are_followed_or_counted(tmp_path: Path) -> None:
    data = images(tmp_path / "data", "a", "b")
    images(tmp_path, "elsewhere", count=9)
    (data / "b/gone.jpg").symlink_to("nowhere.jpg")
    (data / "b/linked.jpg").symlink_to("../a/0.jpg")
    (data / "b/more").symlink_to(tmp_path / "elsewhere")
    (data / "c").symlink_to(tmp_path / "elsewhere")
    assert read_split(data)[0].counts() == {"a": 2, "b": 3, "c": 9}
    assert said(data)[1] == "Skipped: 1 broken link, 1 link to folders."
    (data / "d").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="d is a broken link"):
        read_split(data)


def test_a_class_of_other_files_alone_says_so(tmp_path: Path) -> None:
    images(tmp_path, "a")
    touch(tmp_path, "b/0.ppm", "b/1.ppm")
    with pytest.raises(ConfigError, match=r"b holds no images; .* Skipped: 2 with .*\(\.ppm\)"):
        read_split(tmp_path)
    with pytest.raises(ConfigError, match=r"one folder per class: .* Skipped: 2 with .*\(\.ppm\)"):
        read_split(tmp_path / "b")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_links_in_a_tar_are_read_from_their_members(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{suffix}"
    with tarfile.open(path, "w:gz" if suffix == "tar.gz" else "w") as archive:
        for name in ("best/h.png", "best/s.png", "best/gone.png"):
            info = tarfile.TarInfo(f"d/{name}")
            info.type = tarfile.LNKTYPE if "h" in name else tarfile.SYMTYPE
            info.linkname = {"h": "./d/a/0.png", "s": "../b/0.png", "g": "/0.png"}[name[5]]
            archive.addfile(info)
        for value, name in enumerate(("a/0.png", "b/0.png")):
            data = png(value)
            info = tarfile.TarInfo(f"d/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    lines: list[str] = []
    dataset, _ = read_split(path, say=lines.append)
    assert dataset.counts() == {"a": 1, "b": 1, "best": 2}
    read = {str(entry).rpartition("/d/")[2]: entry.read() for entry in dataset.paths}  # type: ignore[union-attr]
    assert (read["best/h.png"], read["best/s.png"]) == (png(0), png(1))
    assert lines[0] == "Skipped: 1 link to what isn't in the archive."


def renamed_zip(path: Path, names: dict[str, bytes]) -> Path:
    """A .zip with these bytes as names, without the flag for UTF-8."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    data = path.read_bytes()
    for name, other in names.items():
        assert len(name) == len(other)
        data = data.replace(name.encode(), other)
    path.write_bytes(data)
    return path


def test_backslashes_separate_if_no_name_has_a_slash(tmp_path: Path) -> None:
    names = [r"photos\cat\0.jpg", r"photos\cat\1.jpg", r"photos\dog\2.jpg"]
    path = renamed_zip(tmp_path / "a.zip", {name: name.encode() for name in names})
    assert read_split(path)[0].counts() == {"cat": 2, "dog": 1}


def test_names_in_zips_are_utf8_or_said_to_be_unknown(tmp_path: Path) -> None:
    def names(encoding: str, one: str, two: str) -> tuple[tuple[str, ...], str]:
        raw = [text.encode(encoding) for text in (one, two)]
        plain = {f"{'xy'[i] * len(r)}/0.jpg": r + b"/0.jpg" for i, r in enumerate(raw)}
        lines: list[str] = []
        path = renamed_zip(tmp_path / f"{encoding}.zip", plain)
        return read_split(path, say=lines.append)[0].classes, "".join(lines)

    assert names("utf-8", "猫", "café") == (("café", "猫"), "")
    assert names("cp437", "Äpfel", "café") == (("café", "Äpfel"), "")
    for encoding in ("gbk", "big5", "shift_jis"):
        assert "unknown encoding" in names(encoding, "三犬", "六七")[1]
    assert "unknown encoding" in names("cp949", "고양", "이개")[1]


def test_two_names_that_are_not_utf8(tmp_path: Path) -> None:
    try:
        images(tmp_path, os.fsdecode(b"caf\xe9"), "b")
    except OSError:
        pytest.skip("NOT RUN: this file system takes text only")
    assert said(tmp_path)[0].startswith("Read ")
