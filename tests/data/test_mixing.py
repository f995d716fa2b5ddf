"""Mixed, balanced and augmented batches of the loader."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixer_mlx import ImageError, Preprocess
from mixer_mlx.data.augment import augmentation, batch_generator
from mixer_mlx.data.loader import DecodedImages, TrainingBatch, TrainingBatches
from mixer_mlx.data.mixing import Mixing, SoftLabels, blend, class_weights, drawn_order, repeats
from mixer_mlx.data.read import Dataset, read_split
from mixer_mlx.runtime import threads

SMALL = Preprocess((8, 8), crop_pct=1.0)
COUNTS = {"a": 12, "b": 3, "c": 5}
LABELS = np.repeat([0, 1, 2], list(COUNTS.values())).astype(np.int32)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Twenty images of noise, in three classes of different sizes."""
    rng = np.random.default_rng(0)
    for name, count in COUNTS.items():
        (tmp_path / name).mkdir()
        for i in range(count):
            pixels = rng.integers(0, 256, (12, 10, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i:02}.png")
    return read_split(tmp_path)[0]


def batches(
    dataset: Dataset, mixing: Mixing | None = None, balance: str = "none", **more: object
) -> TrainingBatches:
    def fail(path: Path, error: ImageError) -> None:
        raise AssertionError(f"{path}: {error}")

    augmented = augmentation("pad", SMALL, flip=True, **more)  # type: ignore[arg-type]
    return TrainingBatches(
        DecodedImages(dataset, fail), augmented, 6, 0, mixing=mixing, balance=balance
    )


def assert_same(one: list[TrainingBatch], other: list[TrainingBatch]) -> None:
    for (pixels, labels), (again, targets) in zip(one, other, strict=True):
        assert np.array_equal(pixels, again)
        assert type(labels) is type(targets)
        for values, expected in zip(labels, targets, strict=True):
            assert np.array_equal(values, expected)


@pytest.mark.parametrize("balance", ["none", "loss", "sampling"])
@pytest.mark.parametrize("mixing", [None, Mixing(0.5, 1.0)])
def test_going_on_in_the_middle_and_other_threads(
    dataset: Dataset, mixing: Mixing | None, balance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> TrainingBatches:
        return batches(dataset, mixing, balance, rand_augment=(2, 15), erasing=0.5)

    whole = list(made().epoch(2))
    assert len(whole) == 3
    assert_same(list(made().epoch(2, start=1)), whole[1:])
    monkeypatch.setattr(threads, "_workers", 1)
    assert_same(list(made().epoch(2)), whole)
    assert not np.array_equal(next(made().epoch(3))[0], whole[0][0])


def test_big_visions_mixup(dataset: Dataset) -> None:
    """a ~ Beta(p, p), a = max(a, 1 - a), once per batch; the partner is the batch rolled by one."""
    plain, mixed = list(batches(dataset).epoch(1)), list(batches(dataset, Mixing(0.5)).epoch(1))
    shares = []
    for n, ((pixels, labels), (found, soft)) in enumerate(zip(plain, mixed, strict=True)):
        assert isinstance(soft, SoftLabels)
        assert isinstance(labels, np.ndarray)
        a = batch_generator(0, 1, n).beta(0.5, 0.5)
        a = max(a, 1 - a)
        exact = a * pixels + (1 - a) * np.roll(pixels.astype(float), 1, axis=0)
        assert abs(found - exact).max() < 0.5001
        one_hot = np.eye(3)[labels]
        target = sum(np.eye(3)[soft.labels[t]] * soft.weights[t][:, None] for t in (0, 1))
        assert target == pytest.approx(a * one_hot + (1 - a) * np.roll(one_hot, 1, axis=0))
        assert np.array_equal(soft.labels[0], labels)
        shares.append(a)
    assert len(set(shares)) == 3


def test_the_largest_part_comes_first() -> None:
    pixels, labels = np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 2, 3], np.int32)
    first = set()
    for i in range(40):
        _, soft = Mixing(cutmix=1.0)(pixels, labels, np.random.default_rng(i))
        assert (soft.weights[0] >= 0.5).all()
        assert soft.weights.sum(axis=0) == pytest.approx(1)
        assert soft.labels.dtype == np.int32
        assert soft.weights.dtype == np.float32
        first.add(int(soft.labels[0, 0]))
    assert first == {0, 3}


def test_with_both_each_batch_takes_one_half_and_half() -> None:
    """A blend of black and white is grey; a box isn't."""
    pixels = np.zeros((2, 16, 16, 1), np.uint8)
    pixels[1] = 255
    labels = np.array([0, 1], np.int32)
    grey = 0
    for i in range(300):
        mixed, _ = Mixing(5.0, 1.0)(pixels, labels, np.random.default_rng(i))
        grey += not np.isin(mixed, (0, 255)).all()
    assert 120 < grey < 180


def test_a_batch_of_one_stays_as_it_is() -> None:
    pixels = np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3)
    for mixing in (Mixing(0.5), Mixing(cutmix=1.0)):
        mixed, soft = mixing(pixels, np.array([2], np.int32), np.random.default_rng(0))
        assert np.array_equal(mixed, pixels)
        assert (soft.labels == 2).all()
    assert np.array_equal(blend(pixels, 1.0), pixels)


def test_class_weights() -> None:
    weights = class_weights(LABELS, 3)
    assert weights == pytest.approx([20 / (3 * 12), 20 / (3 * 3), 20 / (3 * 5)])
    assert weights[LABELS].mean() == pytest.approx(1)
    with_empty = class_weights(LABELS, 4)
    assert with_empty[3] == 0
    assert with_empty[:3] == pytest.approx(weights)


def test_balanced_loss_weights_the_targets(dataset: Dataset) -> None:
    expected = np.array([20 / 36, 20 / 9, 20 / 15])
    plain = list(batches(dataset).epoch(0))
    for (_, labels), (_, soft) in zip(plain, batches(dataset, None, "loss").epoch(0), strict=True):
        assert isinstance(soft, SoftLabels)
        assert soft.weights == pytest.approx(expected[labels][None])
        assert np.array_equal(soft.labels[0], labels)
    both = zip(
        batches(dataset, Mixing(0.5)).epoch(0),
        batches(dataset, Mixing(0.5), "loss").epoch(0),
        strict=True,
    )
    for (pixels, mixed), (same, soft) in both:
        assert np.array_equal(pixels, same)
        assert isinstance(mixed, SoftLabels)
        assert isinstance(soft, SoftLabels)
        assert soft.weights == pytest.approx(mixed.weights * expected[mixed.labels])


def test_balanced_sampling_draws_classes_alike(dataset: Dataset) -> None:
    counts = np.zeros(3)
    for epoch in range(40):
        order = drawn_order(LABELS, np.random.default_rng([0, epoch]))
        assert len(order) == 20
        counts += np.bincount(LABELS[order], minlength=3)
    assert (abs(counts / 800 - 1 / 3) < 0.05).all()
    found = np.concatenate([labels for _, labels in batches(dataset, None, "sampling").epoch(0)])
    order = drawn_order(LABELS, np.random.default_rng([0, 0]))
    assert np.array_equal(found, LABELS[order][:18])


def test_a_image_drawn_twice_is_augmented_differently(dataset: Dataset) -> None:
    few = dataset.take([0, 12])
    rows = [row for pixels, _ in batches(few, None, "sampling").epoch(0) for row in pixels]
    many = [
        row.tobytes()
        for epoch in range(20)
        for pixels, _ in batches(few, None, "sampling").epoch(epoch)
        for row in pixels
    ]
    assert len(rows) == 2
    twice = [one for one, other in zip(many[::2], many[1::2], strict=True) if one == other]
    assert len(twice) < 6  # 18 crops of one image: some are alike by chance


def test_repeats() -> None:
    order = np.array([3, 1, 3, 3, 0, 1])
    assert repeats(order).tolist() == [0, 0, 1, 2, 0, 1]
    assert not repeats(np.random.default_rng(0).permutation(50)).any()
