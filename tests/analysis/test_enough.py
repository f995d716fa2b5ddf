"""Cross-validated accuracy, counted once more from ridge regression by the normal equations."""

from pathlib import Path

import numpy as np
import pytest

from mixer_mlx.analysis.enough import curve_advice, enough
from mixer_mlx.data.dataset import Dataset
from mixer_mlx.errors import ConfigError
from mixer_mlx.features.dataset import Labelled
from mixer_mlx.features.few_shot import ShotResult


def _labelled(features: np.ndarray, labels: np.ndarray) -> Labelled:
    names = tuple(f"class {k}" for k in range(labels.max() + 1))
    paths = tuple(Path(f"{i}.jpg") for i in range(len(labels)))
    dataset = Dataset(names, paths, labels.astype(np.int32))
    return Labelled(dataset, features.astype(np.float32), np.arange(len(labels)))


def _accuracies_by_hand(x: np.ndarray, labels: np.ndarray) -> list[float]:
    """Of ridge regressions on four fifths of each class, on the rest, for twenty random parts."""
    rng, found = np.random.default_rng(1), []
    for _ in range(20):
        order = np.concatenate([rng.permutation(np.flatnonzero(labels == k)) for k in range(10)])
        test = np.isin(np.arange(len(x)), order[::5])
        mean, std = x[~test].mean(axis=0), x[~test].std(axis=0) + 1e-5
        design = np.column_stack([(x - mean) / std, np.full(len(x), 100.0)])
        targets = 2.0 * np.eye(10)[labels[~test]] - 1
        gram = design[~test].T @ design[~test] + 1024 * np.eye(design.shape[1])
        weight = np.linalg.solve(gram, design[~test].T @ targets)
        found.append(float(((design[test] @ weight).argmax(axis=1) == labels[test]).mean()))
    return found


def test_accuracy_interval_and_curve(golden: Path) -> None:
    with np.load(golden / "cifar_features.npz") as arrays:
        x, labels = arrays["features"].astype(np.float64), arrays["labels"]
    found = enough(_labelled(x, labels))
    expected = _accuracies_by_hand(x, labels)
    assert found.accuracy == pytest.approx(np.mean(expected), abs=0.02)
    # Wilson's interval has no symmetry: its centre is nearer to a half.
    right = found.accuracy * 500
    assert right == pytest.approx(round(right))
    centre = (right + 1.96**2 / 2) / (500 + 1.96**2)
    assert (found.low + found.high) / 2 == pytest.approx(centre, abs=1e-6)
    shots, accuracies = zip(*found.curve, strict=True)
    assert shots[:4] == (1, 5, 10, 25)
    assert shots[-1] == np.bincount(labels).max()
    assert accuracies[0] < accuracies[1] < accuracies[3]
    assert accuracies[-1] == pytest.approx(found.accuracy, abs=0.06)


def test_too_few() -> None:
    with pytest.raises(ConfigError, match="class 1 has 4"):
        enough(_labelled(np.eye(10), np.array([0] * 6 + [1] * 4)))


def result(shots: float | None, accuracy: float, tested: int) -> ShotResult:
    return ShotResult(shots, 10, (accuracy,), tested)


@pytest.mark.parametrize(
    ("half", "whole", "tested", "says", "chance"),
    [
        (0.70, 0.80, 1000, "brought 10.0 points: add more photos.", False),
        (0.70, 0.80, 12, "brought 10.0 points: add more photos.", True),
        (0.80, 0.805, 1000, "brought 0.5 points: more photos of the same kind", True),
        (0.80, 0.78, 100_000, "brought 0.0 points: more photos of the same kind", False),
    ],
)
def test_whether_more_photos_would_help(
    half: float, whole: float, tested: int, says: str, chance: bool
) -> None:
    advice = curve_advice([result(0.5, half, tested), result(None, whole, tested)])
    assert says in advice
    assert ("may be chance" in advice) == chance
