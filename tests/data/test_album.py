"""A folder of classes that grows: every change is on disk, and nothing is lost."""

import os
import shutil
from pathlib import Path

import pytest

from mixer_mlx.data.album import Album, check_class_name
from mixer_mlx.data.read import read_split
from mixer_mlx.errors import ConfigError, ImageError

FILES = Path(__file__).parents[1] / "golden" / "cifar_files"
FROG = (FILES / "frog" / "0000.jpg").read_bytes()
SHIP = (FILES / "ship" / "0000.jpg").read_bytes()


@pytest.fixture
def album(tmp_path: Path) -> Album:
    made = Album(tmp_path / "photos")
    made.make("frog")
    made.make("ship")
    return made


def _files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_images_are_files_of_their_own_bytes(album: Album) -> None:
    path = album.add("frog", FROG)
    assert path
    assert (path.parent, path.suffix) == (album.folder / "frog", ".jpg")
    assert path.read_bytes() == FROG
    assert album.add("frog", FROG) is None
    assert list(album.images()) == [path]
    with pytest.raises(ImageError):
        album.add("frog", FROG[:300])
    with pytest.raises(ConfigError, match="no class"):
        album.add("toad", FROG)
    assert _files(album.folder) == [f"frog/{path.name}"]


def test_names_of_files_follow_their_format(album: Album, cat: Path) -> None:
    path = album.add("ship", cat.read_bytes())
    assert path
    assert path.suffix == ".png"


def test_taking_back_keeps_the_file_and_undo_returns_it(album: Album) -> None:
    first, second = album.add("frog", FROG), album.add("ship", SHIP)
    assert first
    assert second
    album.remove(first)
    moved = album.relabel(second, "frog")
    assert _files(album.folder) == [
        ".confirmed.json",
        f".removed/frog/{first.name}",
        f"frog/{second.name}",
    ]
    assert album.is_confirmed(moved)
    assert album.undo() == (moved, second)
    assert album.undo() == (album.folder / ".removed" / "frog" / first.name, first)
    assert not album.can_undo
    assert album.undo() is None
    assert list(album.images()) == [first, second]


def test_the_same_name_taken_back_twice(album: Album) -> None:
    for _ in range(2):
        path = album.add("frog", FROG)
        assert path
        album.remove(path)
    assert len(_files(album.folder / ".removed")) == 2


def test_renaming_moves_what_belongs_to_a_class(album: Album) -> None:
    kept, gone = album.add("frog", FROG), album.add("frog", SHIP)
    assert kept
    assert gone
    album.confirm(kept)
    album.remove(gone)
    assert album.rename("frog", "Frog") == "Frog"  # the same to some file systems
    assert album.rename("Frog", "toad") == "toad"
    assert album.classes() == ["ship", "toad"]
    assert album.is_confirmed(album.folder / "toad" / kept.name)
    assert album.undo()
    assert _files(album.folder / "toad") == sorted([kept.name, gone.name])
    again = Album(album.folder)
    assert again.is_confirmed(album.folder / "toad" / kept.name)
    assert not again.is_confirmed(album.folder / "toad" / gone.name)


def test_fine_tune_reads_the_classes_alone(album: Album) -> None:
    for name, data in (("frog", FROG), ("frog", SHIP), ("ship", FROG)):
        album.add(name, data)
    album.relabel(next(album.images()), "ship")
    album.remove(list(album.images())[-1])
    dataset, _ = read_split(album.folder)
    assert dataset.classes == ("frog", "ship")
    assert dataset.counts() == {"frog": 1, "ship": 1}


@pytest.mark.parametrize("name", ["dog", "caf\u00e9", "\u732b", "it's", "a b", "100%", "x" * 255])
def test_good_names(name: str) -> None:
    assert check_class_name(name) == name


def test_names_are_composed() -> None:
    assert check_class_name("cafe\u0301") == "caf\u00e9"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "a\\b", "a\0", "a\n", "\u202e", "a:b", ".a", "a.", " a", "é" * 128],
)
def test_bad_names(album: Album, name: str) -> None:
    with pytest.raises(ConfigError):
        album.make(name)
    assert album.classes() == ["frog", "ship"]


def test_names_that_file_systems_confuse(album: Album) -> None:
    album.make("caf\u00e9")
    for name in ("FROG", "cafe\u0301", "CAF\u00c9", "frog"):
        with pytest.raises(ConfigError, match="already"):
            album.make(name)
    (album.folder / "note").write_text("x")
    with pytest.raises(ConfigError, match="no folder of images"):
        album.make("note")


def test_links_are_left_alone(album: Album, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(FILES / "ship", outside)
    (album.folder / "link").symlink_to(outside)
    (album.folder / "frog" / "linked.jpg").symlink_to(outside / "0000.jpg")
    assert album.classes() == ["frog", "ship"]
    assert not list(album.images())
    path = album.add("frog", FROG)
    assert path
    (album.folder / ".removed").symlink_to(outside)
    with pytest.raises(ConfigError, match="link"):
        album.remove(path)
    assert path.exists()
    assert len(os.listdir(outside)) == 16


def test_splits_are_refused(tmp_path: Path) -> None:
    shutil.copytree(FILES, tmp_path / "data" / "train")
    with pytest.raises(ConfigError, match="one folder per class"):
        Album(tmp_path / "data")
    with pytest.raises(ConfigError, match="can't be made"):
        Album(tmp_path / "missing" / "photos")


def test_a_damaged_list_of_confirmations_is_begun_anew(album: Album) -> None:
    (album.folder / ".confirmed.json").write_text('["frog/')
    again = Album(album.folder)
    path = again.add("frog", FROG)
    assert path
    again.confirm(path)
    assert Album(album.folder).is_confirmed(path)
