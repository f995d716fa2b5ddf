"""Splits without near-duplicates on both sides, against a comparison of all pairs."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixer_mlx import ConfigError
from mixer_mlx.data.dataset import Dataset, held_out
from mixer_mlx.data.near import Groups, folds, held_out_together, near_duplicates
from mixer_mlx.data.read import read_split

BURSTS = {"cat": (1, 1, 1, 3, 4), "dog": (1, 1, 1, 1, 1, 1, 1, 2, 3), "owl": (2, 2, 2)}
"""Photos of each scene of a class."""


def scene(rng: np.random.Generator) -> np.ndarray:
    """Soft blobs of colour."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return np.asarray(coarse.resize((80, 60), Image.Resampling.BICUBIC)).astype(int)


@pytest.fixture(scope="module")
def bursts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of BURSTS; those of one scene differ in brightness or size."""
    root, rng = tmp_path_factory.mktemp("bursts"), np.random.default_rng(5)
    for name, counts in BURSTS.items():
        (root / name).mkdir()
        for number, count in enumerate(counts):
            pixels = scene(rng)
            for shot in range(count):
                image = Image.fromarray(np.clip(pixels + 6 * shot, 0, 255).astype(np.uint8))
                image = image.resize((80 - 7 * shot, 60 - 5 * shot))
                image.save(root / name / f"{number}-{shot}.jpg")
    return root


def hashed(path: Path) -> tuple[int, np.ndarray]:
    """Krawetz's difference hash, and the grey values behind it, written anew."""
    with Image.open(path) as image:
        small = image.convert("RGB").convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    grey = np.asarray(small).astype(float)
    return int("".join("01"[int(bit)] for bit in (grey[:, :-1] < grey[:, 1:]).ravel()), 2), grey


def pairs_alike(dataset: Dataset) -> set[tuple[int, int]]:
    found = [hashed(Path(str(path))) for path in dataset.paths]
    return {
        (i, j)
        for i, j in combinations(range(len(found)), 2)
        if (found[i][0] ^ found[j][0]).bit_count() <= 4
        and np.corrcoef(found[i][1].ravel(), found[j][1].ravel())[0, 1] >= 0.8
    }


def test_no_near_duplicate_is_on_both_sides(bursts: Path) -> None:
    dataset = read_split(bursts)[0]
    groups, pairs = near_duplicates(dataset), pairs_alike(dataset)
    assert len(pairs) == 3 + 6 + 1 + 3 + 3
    assert sum(len(rows) for rows in groups.several()) == 3 + 4 + 2 + 3 + 6
    leaks = 0
    for seed in range(20):
        held = held_out_together(dataset, 0.3, seed, groups)
        assert not any(held[i] != held[j] for i, j in pairs)
        plain = held_out(dataset, 0.3, seed)
        leaks += any(plain[i] != plain[j] for i, j in pairs)
        assert dataset.take(np.flatnonzero(held)).counts() == {"cat": 3, "dog": 4, "owl": 2}
    assert leaks == 20, "a split image by image leaks"


def test_each_fold_leaks_nothing(bursts: Path) -> None:
    dataset = read_split(bursts)[0]
    groups, pairs = near_duplicates(dataset), pairs_alike(dataset)
    for count in (2, 3):
        fold = folds(dataset, count, 0, groups)
        assert set(fold.tolist()) == set(range(count))
        assert not any(fold[i] != fold[j] for i, j in pairs)
    with pytest.raises(ConfigError, match=r"`folds`, .*differ, not 19"):
        folds(dataset, 19, 0, groups)  # of 18 scenes
    with pytest.raises(ConfigError, match="not 1"):
        folds(dataset, 1, 0, groups)


def labelled(labels: np.ndarray) -> Dataset:
    paths = tuple(Path(f"{i}.png") for i in range(len(labels)))
    return Dataset(tuple("abcdef"), paths, labels.astype(np.int32))


def test_without_near_duplicates_the_split_is_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    for seed in range(10):
        dataset = labelled(rng.integers(0, 6, 50))
        alone = Groups(np.arange(50))
        held = held_out_together(dataset, 0.2, seed, alone)
        assert held.tolist() == held_out(dataset, 0.2, seed).tolist()


def test_any_groups_stay_whole_and_classes_keep_images() -> None:
    rng = np.random.default_rng(1)
    for seed in range(50):
        dataset = labelled(rng.integers(0, 6, 60))
        groups = Groups(rng.integers(0, rng.integers(8, 60), 60))
        held = held_out_together(dataset, 0.25, seed, groups)
        fold = folds(dataset, 4, seed, groups)
        for part in (held, fold):
            assert all(len(set(part[groups.of == group])) == 1 for group in set(groups.of))
        counts = np.bincount(dataset.labels, minlength=6)
        assert (np.bincount(dataset.labels[~held], minlength=6) >= np.minimum(counts, 1)).all()


def test_a_class_of_one_group_gives_no_image() -> None:
    dataset = labelled(np.array([0] * 4 + [1] * 10))
    groups = Groups(np.array([0] * 4 + [*range(4, 14)]))
    held = held_out_together(dataset, 0.2, 0, groups)
    assert np.bincount(dataset.labels[held], minlength=2).tolist() == [0, 2]


def test_folds_are_as_even_as_scikit_learns() -> None:
    """The standard deviation over folds of each class's images, summed over classes."""
    selection = pytest.importorskip("sklearn.model_selection")
    ours, theirs = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels, group = rng.integers(0, 6, 120), rng.integers(0, 70, 120)
        splitter = selection.StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        reference = np.empty(120, int)
        for number, (_, rows) in enumerate(splitter.split(labels[:, None], labels, group)):
            reference[rows] = number
        found = folds(labelled(labels), 5, seed, Groups(group))
        for fold, into in ((found, ours), (reference, theirs)):
            counts = [np.bincount(labels[fold == k], minlength=6) for k in range(5)]
            into.append(float(np.std(counts, axis=0).sum()))
    assert np.mean(ours) <= np.mean(theirs)


def test_a_class_that_looks_alike_is_split_all_the_same(tmp_path: Path) -> None:
    """As with digits, one group would be most of the class; identical images stay together."""
    for name in ("alike", "noise"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    pixels = scene(rng) // 2
    for i in range(25):
        noise = rng.integers(0, 256, (40, 60), np.uint8)
        Image.fromarray(noise).save(tmp_path / "noise" / f"{i:02}.png")
        Image.fromarray((pixels + i).astype(np.uint8)).save(tmp_path / "alike" / f"{i:02}.png")
    Image.fromarray((pixels + 24).astype(np.uint8)).save(tmp_path / "alike" / "copy.png")
    dataset = read_split(tmp_path)[0]
    groups = near_duplicates(dataset)
    assert groups.simple == ("alike",)
    (copies,) = groups.several()
    assert [dataset.paths[i].name for i in copies] == ["24.png", "copy.png"]  # type: ignore[union-attr]
    held = held_out_together(dataset, 0.2, 0, groups)
    assert dataset.take(np.flatnonzero(held)).counts() == {"alike": 5, "noise": 5}


def test_an_image_that_cannot_be_read_is_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "a" / name).write_bytes(b"no image")
    ticks: list[tuple[int, int]] = []
    groups = near_duplicates(read_split(tmp_path)[0], lambda *at: ticks.append(at))
    assert not groups.several()
    assert ticks == [(1, 1), (2, 2)]
