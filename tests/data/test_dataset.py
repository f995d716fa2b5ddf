from pathlib import Path

import numpy as np
import pytest
from growth import labels_seen

from mixer_mlx import ConfigError
from mixer_mlx.data.dataset import by_name, relabelled
from mixer_mlx.data.read import (
    Dataset,
    hold_out,
    match_classes,
    read_split,
    read_splits,
)
from mixer_mlx.labels import read_list


def make(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i:03}.jpg").touch()
    return root


def test_folders_are_classes_sorted(tmp_path: Path) -> None:
    make(tmp_path, dog=2, cat=1)
    (tmp_path / "cat" / "deep").mkdir()
    (tmp_path / "cat" / "deep" / "b.PNG").touch()
    for ignored in (".hidden", "readme.txt"):
        (tmp_path / "cat" / ignored).touch()
    (tmp_path / ".git").mkdir()
    found = read_split(tmp_path)[0]
    assert found.classes == ("cat", "dog")
    assert [str(path.relative_to(tmp_path)) for path in found.paths] == [
        "cat/000.jpg",
        "cat/deep/b.PNG",
        "dog/000.jpg",
        "dog/001.jpg",
    ]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.counts() == {"cat": 2, "dog": 2}


def test_folders_that_are_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="doesn't exist"):
        read_split(tmp_path / "nowhere")[0]
    with pytest.raises(ConfigError, match=r"one folder per class: .*/<class>/"):
        read_split(tmp_path)[0]
    make(tmp_path, cat=1, dog=0)
    with pytest.raises(ConfigError, match="dog holds no images"):
        read_split(tmp_path)[0]
    (tmp_path / "dog").rmdir()
    with pytest.raises(ConfigError, match="only the class cat"):
        read_splits(tmp_path)


def test_a_split_is_stratified_seeded_and_complete(tmp_path: Path) -> None:
    whole = read_split(make(tmp_path, a=100, b=10, c=2, d=1))[0]
    train, val = hold_out(whole, 0.2, seed=7)
    assert val.counts() == {"a": 20, "b": 2, "c": 1, "d": 0}
    assert train.counts() == {"a": 80, "b": 8, "c": 1, "d": 1}
    assert sorted([*train.paths, *val.paths]) == sorted(whole.paths)
    assert all(
        path.parent.name == val.classes[y] for path, y in zip(val.paths, val.labels, strict=True)
    )
    assert hold_out(whole, 0.2, seed=7)[1].paths == val.paths
    assert hold_out(whole, 0.2, seed=8)[1].paths != val.paths
    for fraction in (0, 1, -0.5):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            hold_out(whole, fraction, seed=0)


def test_labels_that_are_no_names() -> None:
    """A Parquet file may hold a long one once for any number of rows."""
    with pytest.raises(ConfigError, match=r"at most 1,000 characters, not 5,000 \(9999") as caught:
        by_name([Path("a")] * 3, ["9" * 5000, "2", "9" * 5000])
    assert len(str(caught.value)) < 200
    assert by_name([Path("a")] * 2, ["e\u0301", "\u00e9"]).classes == ("\u00e9",)


def test_holding_out_takes_time_for_the_images_not_for_images_times_classes() -> None:
    seen = [labels_seen(count) / count for count in (1000, 2000, 4000)]
    assert max(seen) == pytest.approx(min(seen), rel=0.1)


def test_train_and_val_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    make(tmp_path / "train", a=3, b=2)
    make(tmp_path / "val", a=1, b=1)
    train, val = read_splits(tmp_path)
    assert (len(train), len(val)) == (5, 2)
    make(tmp_path / "val", z=1)
    with pytest.raises(ConfigError, match="a class that the training images lack, z"):
        read_splits(tmp_path)


def test_validation_images_may_lack_a_class(tmp_path: Path) -> None:
    make(tmp_path / "train", a=1, b=2, c=1)
    make(tmp_path / "val", c=1, a=2)
    train, val = read_splits(tmp_path)
    assert val.classes == train.classes == ("a", "b", "c")
    assert val.labels.tolist() == [0, 0, 2]


def test_train_and_test_are_splits_not_classes(tmp_path: Path) -> None:
    make(tmp_path / "train", a=3, b=2)
    make(tmp_path / "test", a=1, b=1)
    with pytest.raises(ConfigError) as caught:
        read_splits(tmp_path)
    assert "no validation split, only test, train" in str(caught.value)
    for option in ("val_split='test'", "val_fraction"):
        assert option in str(caught.value)
    train, val = read_splits(tmp_path, val_split="test")
    assert (len(train), len(val)) == (5, 2)
    train, val = read_splits(tmp_path, val_fraction=0.4)
    assert (train.counts(), val.counts()) == ({"a": 2, "b": 1}, {"a": 1, "b": 1})
    assert read_split(tmp_path)[1] == "test"
    train, val = read_splits(tmp_path, train_split="test", val_split="train")
    assert (len(train), len(val)) == (2, 5)


def test_splits_by_name(tmp_path: Path) -> None:
    for split in ("Train", "validation", "test", "extra"):
        make(tmp_path / split, a=1, b=len(split))
    assert [len(some) for some in read_splits(tmp_path)] == [6, 11]
    assert [len(some) for some in read_splits(tmp_path, val_split="val")] == [6, 11]
    assert [len(some) for some in read_splits(tmp_path, train_split="extra")] == [6, 11]
    assert [len(some) for some in read_splits(tmp_path, val_fraction=0.5)] == [4, 2]
    assert read_split(tmp_path)[1] == "validation"
    assert read_split(tmp_path, "test")[1] == "test"
    with pytest.raises(ConfigError, match="no split wild, only Train, test, validation"):
        read_split(tmp_path, "wild")


def test_without_a_training_split(tmp_path: Path) -> None:
    make(tmp_path / "test", a=1, b=1)
    with pytest.raises(ConfigError, match=r"no training split, only test; choose .*`train_split`"):
        read_splits(tmp_path)
    assert read_split(tmp_path)[1] == "test"
    with pytest.raises(ConfigError, match="no images for validation"):
        read_splits(tmp_path, train_split="test")
    flat = make(tmp_path / "flat", a=1, b=1)
    with pytest.raises(ConfigError, match="no split val, nor any other"):
        read_splits(flat, val_split="val")


def test_classes_may_have_the_names_of_splits(tmp_path: Path) -> None:
    make(tmp_path, train=2, bus=1, car=1)
    assert read_splits(tmp_path)[0].classes == ("bus", "car", "train")
    (tmp_path / "train" / "old").mkdir()
    assert read_split(tmp_path)[1] == ""


def test_paths_that_are_not_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"isn't a dataset; expected one folder .* \.csv list"):
        read_splits(tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match="doesn't exist"):
        read_splits(tmp_path / "nowhere.zip")


def test_folders_match_labels_by_name_synonym_or_number() -> None:
    labels = ["tench, Tinca tinca", "crane", "7", "crane bird, crane"]
    assert match_classes(["Tinca tinca", "crane bird", "tench"], labels) == [0, 3, 0]
    assert match_classes(["3", "0"], labels) == [3, 0]
    with pytest.raises(ConfigError, match=r"call all of them by labels, or all by indices"):
        match_classes(["tench", "3"], labels)
    with pytest.raises(ConfigError, match=r"'crane': 1 \(crane\), 3 \(crane bird, crane\)"):
        match_classes(["tench", "crane"], labels)
    assert match_classes(["7"], labels) == [2]
    with pytest.raises(ConfigError, match=r"'wolf', and 1 of 2"):
        match_classes(["wolf", "tench"], labels)


def test_equal_lists_match_by_position() -> None:
    names = ["crane", "dog", "crane"]
    assert match_classes(names, names) == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"several labels .* 'crane': 0 \(crane\), 2 \(crane\)"):
        match_classes(["crane", "dog"], names)


@pytest.mark.parametrize(
    ("name", "indices"), [("crane", (134, 517)), ("maillot", (638, 639)), ("missile", (657, 744))]
)
def test_names_that_imagenet_has_twice(name: str, indices: tuple[int, int]) -> None:
    labels = read_list("imagenet1k")
    with pytest.raises(ConfigError) as caught:
        match_classes([name, "tench"], labels)
    assert all(f"{index} (" in str(caught.value) for index in indices)
    assert match_classes([str(index) for index in indices], labels) == list(indices)


def test_wordnet_ids_match_the_published_lists() -> None:
    # From ILSVRC 2012's own list: crane the bird, and the machine.
    ids = ["n01440764", "n02012849", "n03126707"]
    labels = read_list("imagenet1k")
    assert match_classes(ids, labels) == [0, 134, 517]
    assert match_classes(ids, [label.split(", ")[0] for label in labels]) == [0, 134, 517]
    for name in ("imagenet21k_goog", "imagenet21k_miil"):
        found = match_classes(["n01440764"], read_list(name))[0]
        assert read_list(name)[found].startswith("tench")
    with pytest.raises(ConfigError, match="no label 'n01440764'"):
        match_classes(ids, labels[:999])


def test_two_classes_of_one_name_stay_two() -> None:
    classes = ("crane", "dog", "crane")
    dataset = Dataset(classes, (Path("0"),) * 4, np.array([0, 1, 2, 2], np.int32))
    assert dataset.counts() == {"crane (0)": 1, "dog": 1, "crane (2)": 2}
    assert relabelled(dataset, classes, "these") is dataset
    with pytest.raises(ConfigError, match="several classes of one name"):
        relabelled(dataset, ("crane", "dog"), "these")


def test_take_keeps_the_classes() -> None:
    whole = Dataset(("a", "b"), (Path("0"), Path("1")), np.array([0, 1], np.int32))
    assert whole.take([1]).labels.tolist() == [1]
    assert whole.take([1]).classes == ("a", "b")
