"""Flipped labels and altered copies of CIFAR-10's images, found among what is untouched.

Features and images come from tests/reference/make_cifar_features.py and make_cifar_images.py.
"""

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

import mixer_mlx
from mixer_mlx import Classifier
from mixer_mlx.analysis.check import Scan, find, read_all_splits, scan
from mixer_mlx.analysis.doubts import (
    FOLDS,
    Looks,
    accuracy_curve,
    alike,
    doubtful_labels,
    look,
    out_of_sample,
)
from mixer_mlx.data.dataset import Dataset
from mixer_mlx.features.dataset import Labelled
from mixer_mlx.features.embed import Embedder
from mixer_mlx.features.layout import WithLayout, split


@pytest.fixture(scope="module")
def cifar(golden: Path) -> Labelled:
    """Features of 50 images of each class."""
    with np.load(golden / "cifar_features.npz") as arrays:
        names = tuple(sorted({name.split("/")[0] for name in arrays["names"]}))
        dataset = Dataset(names, tuple(map(Path, arrays["names"])), arrays["labels"])
        return Labelled(dataset, arrays["features"].astype(np.float32), np.arange(500))


def flipped(whole: Labelled, seed: int) -> tuple[Dataset, np.ndarray]:
    """The dataset with 5 % of its labels changed to any other, and which."""
    rng = np.random.default_rng(seed)
    wrong = rng.choice(500, 25, replace=False)
    labels = whole.labels.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, 25)) % 10
    return Dataset(whole.dataset.classes, whole.dataset.paths, labels), wrong


def looked_at(dataset: Dataset, features: np.ndarray) -> tuple[Scan, Looks]:
    """As if the files had been read."""
    return Scan({"": dataset}), Looks(np.arange(len(dataset)), features, features)


def test_flipped_labels_are_the_most_doubtful(cifar: Labelled) -> None:
    """docs/cli.md has these figures."""
    shares, doubted, right = [], 0, 0
    for seed in range(10):
        dataset, wrong = flipped(cifar, seed)
        labelled = Labelled(dataset, cifar.features, np.arange(500))
        own = out_of_sample(labelled)[np.arange(500), dataset.labels]
        shares.append(np.isin(np.argsort(own)[:25], wrong).mean())
        if seed > 2:
            continue
        found = doubtful_labels(*looked_at(dataset, cifar.features))
        images = [one.images[0] for one in found if one.kind == "doubtful_label"]
        doubted, right = doubted + len(images), right + np.isin(images, wrong).sum()
    assert np.mean(shares) == pytest.approx(0.76, abs=0.01)
    assert min(shares) == pytest.approx(0.68)
    assert right / 75 > 0.85
    assert right / doubted > 0.55


def test_what_is_said_of_a_doubtful_label(cifar: Labelled) -> None:
    dataset, _ = flipped(cifar, 0)
    found = doubtful_labels(*looked_at(dataset, cifar.features))
    doubtful = [one for one in found if one.kind == "doubtful_label"]
    probabilities = [one.facts["label_probability"] for one in doubtful]
    assert probabilities == sorted(probabilities)
    assert max(probabilities) <= 0.05  # type: ignore[type-var, operator]
    first = doubtful[0]
    (index,) = first.images
    other, own = cifar.dataset.classes[cifar.labels[index]], dataset.classes[dataset.labels[index]]
    assert first.detail == f"labelled {own}, looks like {other}"
    assert first.facts["looks_like"] == other
    unsure = [one for one in found if one.kind == "unsure"]
    assert len(unsure) == 20
    assert not {one.images for one in unsure} & {one.images for one in doubtful}
    assert all(" or " in one.detail for one in unsure)


def test_small_classes_are_not_judged(cifar: Labelled) -> None:
    rows = np.flatnonzero((cifar.labels < 2) | (cifar.labels == 2) & (np.arange(500) < 104))
    dataset = cifar.dataset.take(rows)
    assert dataset.counts()["bird"] == FOLDS - 1
    scanned, looks = looked_at(dataset, cifar.features[rows])
    found = doubtful_labels(scanned, looks)
    assert "bird" not in {scanned.class_of[one.images[0]] for one in found}
    assert doubtful_labels(*looked_at(dataset.take(range(50)), cifar.features[rows[:50]])) == []
    assert accuracy_curve(*looked_at(dataset.take(range(50)), cifar.features[rows[:50]])) == []


def test_the_curve_rises_with_the_images(cifar: Labelled) -> None:
    curve = accuracy_curve(*looked_at(cifar.dataset, cifar.features))
    assert [one.shots for one in curve] == [1, 5, 10, 25, None]
    assert [one.images for one in curve] == [10, 50, 100, 250, 400]
    assert curve[0].mean < curve[1].mean < curve[-1].mean
    assert 0.75 < curve[-1].mean < 0.95


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return mixer_mlx.load("cifar10", dtype="float32")


def crop(image: Image.Image) -> Image.Image:
    return image.crop((1, 2, 30, 31))


def bright(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.5)


def contrast(image: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(1.6)


def poster(image: Image.Image) -> Image.Image:
    return ImageOps.posterize(image, 3)


@pytest.fixture(scope="module")
def images(golden: Path) -> dict[str, Image.Image]:
    with zipfile.ZipFile(golden / "cifar_images.zip") as archive:
        return {
            name: Image.open(BytesIO(archive.read(name))).convert("RGB")
            for name in archive.namelist()
        }


@pytest.mark.parametrize(
    ("change", "least"), [(crop, 0.6), (bright, 0.8), (contrast, 0.95), (poster, 0.9)]
)
def test_altered_copies_among_images_of_the_same_class(
    images: dict[str, Image.Image],
    classifier: Classifier,
    tmp_path: Path,
    change: Callable[[Image.Image], Image.Image],
    least: float,
) -> None:
    """Copies of a half of 40 cats and 40 dogs: how many are found, and nothing else is."""
    for number, (name, image) in enumerate(images.items()):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        image.save(path.with_suffix(".png"))
        if number % 2:
            change(image).save(path.with_name(f"{path.stem}-copy.png"))
    scanned = scan(read_all_splits(tmp_path))
    looks = look(scanned, classifier)
    found = alike(scanned, looks, [])
    groups = [{Path(str(scanned.entries[i])).stem for i in one.images} for one in found]
    assert all(len(group) == 2 for group in groups)
    assert all(len({stem.removesuffix("-copy") for stem in group}) == 1 for group in groups)
    assert len(groups) / 40 >= least
    hashed = find(scanned)
    left = alike(scanned, looks, hashed)
    known = {one.images for one in hashed if len(one.images) > 1}
    assert {one.images for one in left} == {one.images for one in found} - known


def test_pre_logits_do_not_tell_images_of_a_class_apart(
    images: dict[str, Image.Image], classifier: Classifier
) -> None:
    """Why layouts are used: a crop is nearer to its original than any other image is."""
    embedder = Embedder(classifier.model, classifier.info, classifier.device, WithLayout())
    plain = list(images.values())
    parts = split(embedder.array([*plain, *map(crop, plain)]), classifier.config)
    share = {}
    for name, vectors in parts._asdict().items():
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = units @ units.T
        np.fill_diagonal(cosines, -1)
        share[name] = np.mean(cosines[80:].argmax(axis=1) == np.arange(80))
    assert share["layouts"] > 0.95
    assert share["pre_logits"] < 0.9


def test_the_pre_logits_are_those_of_embed(classifier: Classifier, cat: Path) -> None:
    embedder = Embedder(classifier.model, classifier.info, classifier.device, WithLayout())
    found = embedder.array([cat])
    assert found.shape == (1, 128 + 1024)
    assert abs(found[:, :128] - classifier.embed([cat])).max() < 1e-5
