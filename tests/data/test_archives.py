"""Datasets in archives are those in folders."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mixer_mlx import ConfigError, ImageError
from mixer_mlx.data import folders
from mixer_mlx.data.read import read_split, read_splits
from mixer_mlx.images import archives
from mixer_mlx.images.stored import StoredImage
from mixer_mlx.training.fingerprint import fingerprint

KINDS = ["photos.zip", "photos.tar", "photos.tar.gz"]


@pytest.mark.parametrize("prefix", ["", "my photos/"])
@pytest.mark.parametrize("name", KINDS)
def test_an_archive_is_the_folder_that_was_packed(name, prefix, files, folder, pack) -> None:  # type: ignore[no-untyped-def]
    path = pack(name, files, prefix)
    for packed, plain in zip(read_splits(path), read_splits(folder), strict=True):
        assert packed.classes == plain.classes == ("cat", "dog")
        assert packed.labels.tolist() == plain.labels.tolist()
        names = [str(entry).removeprefix(f"{path}/{prefix}") for entry in packed.paths]
        assert names == [str(entry).removeprefix(f"{folder}/") for entry in plain.paths]
        # So a run can be resumed after its folder has been packed.
        assert fingerprint(packed) == fingerprint(plain)
        with ThreadPoolExecutor(8) as threads:
            backwards = list(packed.paths[::-1]) * 3
            read = list(threads.map(lambda entry: entry.read(), backwards))
        assert read == [files[name] for name in names[::-1]] * 3
    assert sorted(os.listdir(path.parent)) == sorted(["photos", name])


def test_one_part_without_and_with_a_folder_around(files, pack) -> None:  # type: ignore[no-untyped-def]
    flat = {name.removeprefix("train/"): data for name, data in files.items() if "train" in name}
    for prefix in ("", "x/"):
        dataset, split = read_split(pack(f"a{len(prefix)}.zip", flat, prefix))
        assert (dataset.counts(), split) == ({"cat": 6, "dog": 4}, "")
    dataset, split = read_split(pack("b.tar", flat, "train/"))
    assert (dataset.counts(), split) == ({"cat": 6, "dog": 4}, "train")


def test_a_compressed_tar_has_to_fit_into_memory(files, pack, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    size = sum(map(len, files.values()))
    path = pack("a.tar.gz", files)
    monkeypatch.setattr(folders, "MEMORY_BYTES", size)
    read_splits(path)
    monkeypatch.setattr(folders, "MEMORY_BYTES", size - 1)
    with pytest.raises(ConfigError, match=r"unpack it, or pack it as \.zip or plain \.tar"):
        read_splits(path)
    read_splits(pack("a.tar", files))


@pytest.mark.parametrize("prefix", ["", "photos/"])
@pytest.mark.parametrize("name", KINDS)
def test_metadata_in_an_archive_is_read_as_in_a_folder(name, prefix, files, pack) -> None:  # type: ignore[no-untyped-def]
    rows = {"cat/1.png": "odd", "dog/2.png": "even", "./cat/deep/0.png": "even"}
    text = "".join(f"{path},{label}\n" for path, label in rows.items())
    lists = {f"{s}/metadata.csv": f"file_name,label\n{text}".encode() for s in ("train", "val")}
    path = pack(name, files | lists, prefix)
    for split, dataset in zip(("train", "val"), read_splits(path), strict=True):
        assert dataset.classes == ("even", "odd")
        assert dataset.labels.tolist() == [1, 0, 0]
        assert [entry.read() for entry in dataset.paths] == [
            files[f"{split}/{os.path.normpath(row)}"] for row in rows
        ]


def test_metadata_in_an_archive_that_names_what_is_not_there(files, pack) -> None:  # type: ignore[no-untyped-def]
    rows = ['{"file_name": "train/cat/%s.png", "label": "a"}' % i for i in (1, 99)]  # noqa: UP031
    path = pack("a.zip", files | {"metadata.jsonl": "\n".join(rows).encode()})
    found, _ = read_split(path)
    with pytest.raises(ImageError, match="doesn't hold this image"):
        found.paths[1].read()
    none = pack("b.zip", files | {"metadata.jsonl": rows[1].encode()})
    with pytest.raises(ConfigError, match=r"b.zip/metadata.jsonl line 1 names train/cat/99.png"):
        read_split(none)
    without_labels = pack("c.zip", files | {"train/metadata.csv": b"file_name,text\n"})
    assert read_splits(without_labels)[0].classes == ("cat", "dog")


def test_what_changed_is_noticed(files, pack) -> None:  # type: ignore[no-untyped-def]
    before = fingerprint(read_splits(pack("a.zip", files))[0])
    longer = files | {"train/cat/3.png": files["train/cat/3.png"] + b" "}
    assert fingerprint(read_splits(pack("a.zip", longer))[0]) != before
    renamed = files | {"train/cat/33.png": files["train/cat/3.png"]}
    del renamed["train/cat/3.png"]
    assert fingerprint(read_splits(pack("a.zip", renamed))[0]) != before


@pytest.mark.parametrize("name", KINDS)
def test_broken_archives_are_refused(name, files, pack) -> None:  # type: ignore[no-untyped-def]
    path = pack(name, files)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])
    with pytest.raises(ConfigError, match=rf"{name} can't be used: .*use an intact copy"):
        read_splits(path)


def test_what_predict_passes_over_is_passed_over(files, pack, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    some = {"__MACOSX/train/cat/._0.png": b"x", "../up/cat/0.png": b"x", "train/.x/0.png": b"x"}
    train, _ = read_splits(pack("a.zip", some | files))
    assert train.counts() == {"cat": 6, "dog": 4}
    monkeypatch.setattr(archives, "MAX_MEMBERS", 15)
    with pytest.raises(ConfigError, match="more than 15 files"):
        read_splits(pack("a.zip", files))


def test_no_classes_in_it(pack) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="one folder per class"):
        read_splits(pack("a.zip", {"1.png": b"x", "2.png": b"x"}))
    with pytest.raises(ConfigError, match="one folder per class"):
        read_splits(pack("b.zip", {}))


def test_a_member_is_read_from_the_file_that_was_opened(files, pack) -> None:  # type: ignore[no-untyped-def]
    path: Path = pack("a.tar", files)
    entry = read_splits(path)[0].paths[0]
    path.unlink()
    assert isinstance(entry, StoredImage)
    assert entry.read() == files["train/cat/1.png"]
