"""Few shots of CIFAR-10; the features come from tests/reference/make_cifar_features.py."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixer_mlx import load
from mixer_mlx.data.dataset import Dataset
from mixer_mlx.errors import ConfigError
from mixer_mlx.features import probe
from mixer_mlx.features.dataset import Labelled, embedded, looked_up
from mixer_mlx.features.embed import Embedder
from mixer_mlx.features.few_shot import classifier_from, drawn, few_shot, with_head
from mixer_mlx.features.store import Vectors


@pytest.fixture(scope="module")
def cifar(golden: Path) -> Labelled:
    with np.load(golden / "cifar_features.npz") as arrays:
        names = tuple(sorted({name.split("/")[0] for name in arrays["names"]}))
        dataset = Dataset(names, tuple(map(Path, arrays["names"])), arrays["labels"])
        return Labelled(dataset, arrays["features"].astype(np.float32), np.arange(500))


def halves(whole: Labelled) -> tuple[Labelled, Labelled]:
    even, odd = np.arange(0, 500, 2), np.arange(1, 500, 2)
    return (
        Labelled(whole.dataset, whole.features[even], even),
        Labelled(whole.dataset, whole.features[odd], odd),
    )


def test_more_shots_are_better(cifar: Labelled) -> None:
    train, test = halves(cifar)
    one, five, everything = few_shot(train, test, [1, 5, None], seeds=3)
    assert (one.images, five.images, everything.images) == (10, 50, 250)
    assert (len(one.accuracies), len(everything.accuracies)) == (3, 1)
    assert 0.5 < one.mean < five.mean < 0.95
    assert everything.mean > 0.75
    assert one.spread == pytest.approx(np.std(one.accuracies, ddof=1))
    assert everything.spread == 0


def test_shots_are_drawn_by_class_and_grow(cifar: Labelled) -> None:
    few, more = (drawn(cifar.labels, 10, shots, 7) for shots in (2, 9))
    assert np.bincount(cifar.labels[few]).tolist() == [2] * 10
    assert set(few) < set(more)
    assert few != drawn(cifar.labels, 10, 2, 8)


def test_a_class_with_fewer_images_than_shots(cifar: Labelled) -> None:
    train, test = halves(cifar)
    with pytest.raises(
        ConfigError, match="airplane has 25 readable training images, fewer than 26"
    ):
        few_shot(train, test, [1, 26])
    cut = train.labels != 3
    without = Labelled(train.dataset, train.features[cut], train.indices[cut])
    with pytest.raises(ConfigError, match="class cat has no readable training images"):
        few_shot(without, test, [1])
    none = Labelled(test.dataset, test.features[:0], test.indices[:0])
    with pytest.raises(ConfigError, match="No validation image"):
        few_shot(train, none, [1])


def test_the_head_is_the_solution(cifar: Labelled, golden: Path) -> None:
    classifier = load("cifar10", dtype="float32")
    head = classifier_from(cifar, 5)
    model, info = with_head(classifier.model, classifier.info, head, cifar.dataset.classes)
    with np.load(golden / "timm_cifar10" / "expected.npz") as arrays:
        pictures = arrays["pictures"]
    features = classifier.embed(list(pictures))
    made = type(classifier)(model, info)
    assert abs(np.array(made.forward(pictures)) - head.scores(features)).max() < 1e-4
    rows = drawn(cifar.labels, 10, 5, 0)
    plain = probe.fit(cifar.features[rows], cifar.labels[rows], 10)
    assert np.array_equal(head.scores(features).argmax(1), plain.scores(features).argmax(1))
    assert info.labels == cifar.dataset.classes
    assert classifier.model.head.weight.shape == (10, 128)  # the loaded model is unchanged
    two, _ = with_head(model, info, probe.fit(cifar.features, cifar.labels % 2, 2), ["a", "b"])
    assert two.head.weight.shape == (2, 128)


def test_the_scale_makes_probabilities_mean_something(cifar: Labelled) -> None:
    train, test = halves(cifar)
    scaled = probe.losses(classifier_from(train, None).scores(test.features), test.labels).mean()
    plain = probe.fit(train.features, train.labels, 10).scores(test.features)
    assert scaled < 0.7 * probe.losses(plain, test.labels).mean()


def test_features_from_a_file(cifar: Labelled, tmp_path: Path) -> None:
    names = list(map(str, reversed(cifar.dataset.paths)))
    vectors = Vectors(names, cifar.features[::-1])
    found = looked_up(cifar.dataset, vectors, tmp_path / "f.npz")
    assert np.array_equal(found.features, cifar.features)
    absolute = tuple(path.absolute() for path in cifar.dataset.paths)
    found = looked_up(replace(cifar.dataset, paths=absolute), vectors, tmp_path / "f.npz")
    assert np.array_equal(found.features, cifar.features)
    for wrong, says in (
        (Vectors(names[1:], cifar.features[::-1][1:]), "lacks 1 of 500 images, e.g. truck/"),
        (Vectors(names, cifar.features[:, None]), "pool='mean'"),
    ):
        with pytest.raises(ConfigError, match=says):
            looked_up(cifar.dataset, wrong, tmp_path / "f.npz")


def test_unreadable_images_are_left_out(cat: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("text")
    paths = (cat, tmp_path / "bad.png", cat)
    dataset = Dataset(("a", "b"), paths, np.array([0, 0, 1], np.int32))
    classifier = load("cifar10", dtype="float32")
    bad = []
    found = embedded(
        dataset,
        Embedder(classifier.model, classifier.info),
        on_unreadable=lambda path, error: bad.append(path),
    )
    assert bad == [paths[1]]
    assert found.labels.tolist() == [0, 1]
    assert abs(found.features - classifier.embed([cat, cat])).max() < 1e-5
