import threading
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixer_mlx import ConfigError, ImageError, Preprocess
from mixer_mlx.data.augment import (
    NoAugmentation,
    PaddedCrop,
    RandomCrop,
    augmentation,
    generator,
)
from mixer_mlx.data.loader import DecodedImages, EvaluationBatches, TrainingBatches
from mixer_mlx.data.read import Dataset, read_split
from mixer_mlx.runtime.threads import in_threads

SMALL = Preprocess((8, 8), crop_pct=1.0)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Twenty images of one grey value each, their index times ten, in two classes."""
    for i in range(20):
        folder = tmp_path / "ab"[i >= 10]
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (10, 12), (10 * i,) * 3).save(folder / f"{i:02}.png")
    return read_split(tmp_path)[0]


def batches(dataset: Dataset, batch_size: int = 6, seed: int = 0) -> TrainingBatches:
    return TrainingBatches(DecodedImages(dataset, fail), RandomCrop(SMALL), batch_size, seed)


def fail(path: Path, error: ImageError) -> None:
    raise AssertionError(f"{path}: {error}")


def indices(found: list[tuple[np.ndarray, np.ndarray]]) -> list[list[int]]:
    return [(pixels[:, 0, 0, 0] // 10).tolist() for pixels, _ in found]


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch(dataset: Dataset) -> None:
    first = indices(list(batches(dataset).epoch(0)))
    assert [len(batch) for batch in first] == [6, 6, 6]
    flat = list(chain(*first))
    assert len(set(flat)) == 18
    assert flat != sorted(flat)
    assert indices(list(batches(dataset).epoch(0))) == first
    assert indices(list(batches(dataset).epoch(1))) != first
    assert indices(list(batches(dataset, seed=1).epoch(0))) != first


def test_labels_belong_to_their_images(dataset: Dataset) -> None:
    for pixels, labels in batches(dataset).epoch(3):
        assert labels.dtype == np.int32
        assert (labels == (pixels[:, 0, 0, 0] >= 100)).all()


def test_going_on_in_the_middle_gives_the_same_batches(dataset: Dataset) -> None:
    whole = list(batches(dataset).epoch(2))
    rest = list(batches(dataset).epoch(2, start=1))
    for (pixels, labels), (later, names) in zip(whole[1:], rest, strict=True):
        assert np.array_equal(pixels, later)
        assert np.array_equal(labels, names)


def test_augmentation_depends_on_the_image_not_on_the_batch(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f"{i}.png")
    data = read_split(tmp_path)[0]

    def rows(batch_size: int) -> set[bytes]:
        found = TrainingBatches(DecodedImages(data, fail), PaddedCrop(SMALL), batch_size, 5).epoch(
            1
        )
        return {row.tobytes() for pixels, _ in found for row in pixels}

    assert len(rows(1)) == 4
    assert rows(1) == rows(2) == rows(4)


def test_a_small_set_is_one_smaller_batch(dataset: Dataset) -> None:
    few = batches(dataset, batch_size=64)
    assert len(few) == 1
    assert [len(labels) for _, labels in few.epoch(0)] == [20]


def test_bad_images_are_named_once_and_replaced_by_the_next(dataset: Dataset) -> None:
    for index in (3, 11):
        dataset.paths[index].write_text("no image")
    named: list[str] = []
    images = DecodedImages(dataset, lambda path, _: named.append(path.name))
    found = TrainingBatches(images, RandomCrop(SMALL), 6, 0)
    first = list(found.epoch(0))
    assert [len(labels) for _, labels in first] == [6, 6, 6]
    assert not {3, 11} & set(chain(*indices(first)))
    list(found.epoch(1))
    assert sorted(named) == ["03.png", "11.png"]
    # From the middle of the epoch, without having met them before: the same batches.
    later = TrainingBatches(DecodedImages(dataset, lambda *_: None), RandomCrop(SMALL), 6, 0)
    assert indices(list(later.epoch(0, start=2))) == indices(first)[2:]


def test_no_image_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_text("no image")
    images = DecodedImages(read_split(tmp_path)[0], lambda *_: None)
    with pytest.raises(ConfigError, match="None of the training images"):
        list(TrainingBatches(images, RandomCrop(SMALL), 4, 0).epoch(0))


def test_evaluation_is_in_order_and_complete(dataset: Dataset) -> None:
    dataset.paths[4].write_text("no image")
    images = DecodedImages(dataset, lambda *_: None)
    found = list(EvaluationBatches(images, SMALL, 8))
    assert [len(labels) for _, labels in found] == [8, 8, 3]
    assert list(chain(*indices(found))) == [i for i in range(20) if i != 4]
    assert list(images.unreadable) == [4]


def test_decoded_images_are_kept_up_to_a_size(dataset: Dataset) -> None:
    images = DecodedImages(dataset, fail, memory_bytes=5 * 10 * 12 * 3)
    for index in range(20):
        images[index]
    for path in dataset.paths:
        path.unlink()
    images._on_unreadable = lambda *_: None
    assert [index for index in range(20) if images[index]] == [0, 1, 2, 3, 4]


def test_threads_keep_the_order_and_the_distance() -> None:
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        return item * item

    results = in_threads(work, iter(range(10**9)), ahead=10)
    assert [next(results) for _ in range(100)] == [i * i for i in range(100)]
    assert len(started) <= 111
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() < 50


def test_random_parts_have_the_stated_areas_and_aspects() -> None:
    crop = RandomCrop(SMALL)
    boxes = np.array([crop._box((400, 300), generator(0, 0, i)) for i in range(4000)])
    left, top, right, bottom = boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= 400).all()
    assert (bottom <= 300).all()
    area, aspect = (right - left) * (bottom - top) / 120_000, (right - left) / (bottom - top)
    assert 0.045 < area.min() < 0.08
    assert area.max() > 0.9
    assert 0.7 < aspect.min() < 0.8
    assert 1.3 < aspect.max() < 1.4
    # Uniform in area, but for the large parts that don't fit and are drawn again.
    assert 0.4 < area.mean() < 0.55


def test_a_part_is_the_resized_box_mirrored_in_half_the_cases() -> None:
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
    mirrored = 0
    for i in range(200):
        box = RandomCrop(SMALL)._box(image.size, generator(0, 0, i))
        plain = np.array(image.resize((8, 8), Image.Resampling.BICUBIC, box))
        found = RandomCrop(SMALL)(image, generator(0, 0, i))
        turned = np.array_equal(found, plain[:, ::-1])
        assert turned or np.array_equal(found, plain)
        mirrored += turned
    assert 70 < mirrored < 130


def test_narrow_images_give_their_centre() -> None:
    crop = RandomCrop(SMALL, area=(0.99, 1.0))
    assert crop._box((1000, 2), generator(0, 0, 0)) == (499, 0, 501, 2)


def test_padded_crops_are_shifts_with_a_black_border() -> None:
    pixels = np.arange(1, 193, dtype=np.uint8).reshape(8, 8, 3)
    padded = np.zeros((10, 10, 3), np.uint8)
    padded[1:9, 1:9] = pixels
    possible = {
        (top, left, flip): padded[top : top + 8, left : left + 8][:, :: -1 if flip else 1].tobytes()
        for top in range(3)
        for left in range(3)
        for flip in (False, True)
    }
    image = Image.fromarray(pixels)
    seen = {PaddedCrop(SMALL)(image, generator(0, 0, i)).tobytes() for i in range(400)}
    assert seen == set(possible.values())


def test_small_images_are_padded_and_large_ones_cut() -> None:
    assert isinstance(augmentation("auto", Preprocess((32, 32)), flip=True), PaddedCrop)
    assert isinstance(augmentation("auto", Preprocess((224, 224)), flip=True), RandomCrop)
    assert isinstance(augmentation("none", Preprocess((224, 224)), flip=True), NoAugmentation)


def test_without_flip_nothing_is_mirrored() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8))
    for i in range(20):
        box = RandomCrop(SMALL)._box(image.size, generator(0, 0, i))
        plain = np.array(image.resize((8, 8), Image.Resampling.BICUBIC, box))
        found = augmentation("crop", SMALL, flip=False)(image, generator(0, 0, i))
        assert np.array_equal(found, plain)


def test_grey_models_get_one_channel() -> None:
    grey = Preprocess((8, 8), mean=(0.5,), std=(0.5,))
    image = Image.new("RGB", (20, 20), "red")
    for kind in ("crop", "pad", "none"):
        found = augmentation(kind, grey, flip=True)(image, generator(0, 0, 0))
        assert found.shape == (8, 8, 1)


def test_a_thread_that_ends_before_its_work_does_ends_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As without memory: the executor's own code fails, and nobody would ever set the result."""

    def run(self: object) -> None:
        raise MemoryError

    monkeypatch.setattr("concurrent.futures.thread._WorkItem.run", run)
    monkeypatch.setattr("mixer_mlx.runtime.threads._PATIENCE", 0.05)
    with pytest.raises(MemoryError, match="a thread failed"):
        list(in_threads(str, range(3), ahead=2))


def test_a_timeout_of_the_work_is_its_own() -> None:
    def work(number: int) -> int:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        list(in_threads(work, range(3), ahead=2))
