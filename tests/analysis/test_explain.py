"""Maps against what is known: where a class is, what gradients add up to, what hiding changes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

import mixer_mlx
from mixer_mlx import Classifier, ConfigError, resolution
from mixer_mlx.analysis.evaluate import Outcome
from mixer_mlx.analysis.explain import Explainer, mean_colour, random_masks
from mixer_mlx.analysis.heatmap import maps_of_mistakes, overlay, page
from mixer_mlx.choices import ExplainMethod

METHODS = ["rise", "occlusion", "gradient"]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return mixer_mlx.load("cifar10", dtype="float32")


@pytest.fixture(scope="module")
def large(classifier: Classifier) -> Classifier:
    """The built-in model for 64 x 64 pixels, by the paper's block-diagonal rule."""
    model = resolution.resize(classifier.model, (64, 64))
    preprocess = replace(classifier.preprocess, image_size=(64, 64))
    return Classifier(model, replace(classifier.info, config=model.config, preprocess=preprocess))


Mosaic = tuple[NDArray[np.uint8], int, tuple[int, int]]


@pytest.fixture(scope="module")
def mosaics(classifier: Classifier, golden: Path) -> list[Mosaic]:
    """Four CIFAR images of different classes each; the class in one quadrant, and which."""
    with np.load(golden / "timm_cifar10" / "expected.npz") as arrays:
        images = arrays["pictures"]
        names = [str(path).split("/")[-2] for path in arrays["paths"]]
    labels = np.array([classifier.labels.index(name) for name in names])
    found = classifier.predictions(images, k=1)
    known = [i for i in range(16) if found[i][0].index == labels[i]]
    rng, made = np.random.default_rng(0), []
    while len(made) < 12:
        chosen = rng.choice(known, 4, replace=False)
        if len(set(labels[chosen])) == 4:
            a, b, c, d = images[chosen]
            number = len(made) % 4
            mosaic = np.vstack([np.hstack([a, b]), np.hstack([c, d])])
            made.append((mosaic, int(labels[chosen[number]]), divmod(number, 2)))
    return made


def in_quadrants(explainer: Explainer, mosaics: list[Mosaic]) -> tuple[float, int]:
    """The mean share of what speaks for the class that is in its quadrant; how often the highest.

    A map in which nothing speaks for it has a share of 0.
    """
    shares, highest = [], 0
    for image, index, quadrant in mosaics:
        sums = explainer.map(image, index).reshape(2, 8, 2, 8).sum(axis=(1, 3))
        positive = np.maximum(sums, 0)
        shares.append(positive[quadrant] / max(positive.sum(), 1e-9))
        highest += bool(sums[quadrant] == sums.max() > 0)
    return float(np.mean(shares)), highest


@pytest.mark.parametrize(
    ("method", "count", "cheaper"),
    [("rise", 3, {"masks": 32}), ("gradient", 4, {"steps": 4})],
)
def test_the_map_lies_in_the_quadrant_of_the_class(
    large: Classifier, mosaics: list[Mosaic], method: ExplainMethod, count: int, cheaper: Any
) -> None:
    """On as many as take a second each, so not by occlusion; chance is 0.25."""
    share, highest = in_quadrants(Explainer(large, method, **cheaper), mosaics[:count])
    assert share > 0.6
    assert highest >= count - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "share", "highest"),
    [("rise", 0.78, 11), ("occlusion", 0.66, 10), ("gradient", 0.77, 12)],
)
def test_how_much_lies_in_the_quadrant_of_the_class(
    large: Classifier, mosaics: list[Mosaic], method: ExplainMethod, share: float, highest: int
) -> None:
    """docs/cli.md has these figures."""
    assert in_quadrants(Explainer(large, method), mosaics) == (
        pytest.approx(share, abs=0.01),
        highest,
    )


@pytest.mark.parametrize("method", METHODS)
def test_maps_beat_random_orders(classifier: Classifier, cat: Path, method) -> None:  # type: ignore[no-untyped-def]
    found = Explainer(classifier, method)(cat)
    assert found.prediction.label == "cat"
    assert found.map.shape == (8, 8)
    assert found.map.dtype == np.float32
    assert found.scores.difference > found.random.difference + 0.1
    assert [p.index for p in found.top] == [p.index for p in classifier(cat)]
    assert page(found).mode == "RGB"


def test_integrated_gradients_add_up(classifier: Classifier, cat: Path) -> None:
    """To the difference of the two probabilities (completeness, arXiv 1703.01365)."""
    pixels = classifier.preprocess(cat)
    blank = np.broadcast_to(mean_colour(pixels), pixels.shape)
    both = np.array(mx.softmax(classifier.forward(np.stack([pixels, blank])), axis=-1))
    found = Explainer(classifier, "gradient").map(pixels, 3)
    assert found.sum() == pytest.approx(both[0, 3] - both[1, 3], abs=0.05)


def test_hidden_patches_have_the_mean_colour(classifier: Classifier, cat: Path) -> None:
    """And occlusion is what pixels painted by hand give."""
    pixels = classifier.preprocess(cat)
    painted = pixels.copy()
    painted[:8, :8] = pixels.reshape(-1, 3).mean(axis=0).round()
    both = np.array(mx.softmax(classifier.forward(np.stack([pixels, painted])), axis=-1))[:, 3]
    shown = np.ones((2, 8, 8), bool)
    shown[1, :2, :2] = False
    explainer = Explainer(classifier, "occlusion")
    assert explainer.probabilities(pixels, 3, shown) == pytest.approx(both, abs=1e-6)


def test_masks_come_with_their_opposites() -> None:
    masks = random_masks(6, (14, 10), seed=0)
    assert masks.shape == (6, 14, 10)
    assert (masks[::2] == ~masks[1::2]).all()
    assert masks.mean() == pytest.approx(0.5, abs=0.01)
    assert (random_masks(6, (14, 10), seed=1) != masks).any()


def test_scores_are_areas_of_the_curves(
    classifier: Classifier, cat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a class whose probability is the share of patches shown: 1/2, whatever the order."""
    monkeypatch.setattr(
        Explainer, "probabilities", lambda self, pixels, index, shown: shown.mean(axis=(1, 2))
    )
    found = Explainer(classifier, "rise")(cat)
    for scores in (found.scores, found.random):
        assert (scores.insertion, scores.deletion) == pytest.approx((0.5, 0.5))


def test_colours_of_maps() -> None:
    values = np.array([[1, -1], [0, 0]], np.float32)
    image = np.asarray(overlay(np.full((8, 8, 3), 128, np.uint8), values, side=32)).astype(int)
    assert image[4, 4, 0] > image[4, 4, 2] + 50
    assert image[4, 28, 2] > image[4, 28, 0] + 50


def test_maps_of_mistakes_leave_out_what_is_gone(
    classifier: Classifier, cat: Path, tmp_path: Path
) -> None:
    outcomes = [Outcome(5, 3, 0.9, 3.0), Outcome(3, 3, 0.9, 0.1), Outcome(5, 3, 0.8, 2.0)]
    maps = maps_of_mistakes(classifier, [cat, cat, tmp_path / "gone.png"], outcomes)
    assert list(maps) == [0]


def test_wrong_arguments(classifier: Classifier, cat: Path) -> None:
    with pytest.raises(ConfigError, match="no class 10; expected 0 to 9"):
        Explainer(classifier)(cat, 10)
    with pytest.raises(ConfigError, match="method"):
        Explainer(classifier, "grad-cam")  # type: ignore[arg-type]
