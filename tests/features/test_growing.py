"""A probe that grows is that of `probe.fit`, which is scikit-learn's."""

from pathlib import Path

import numpy as np
import pytest

from mixer_mlx.errors import ConfigError
from mixer_mlx.features import probe
from mixer_mlx.features.growing import GrowingProbe


@pytest.fixture(scope="module")
def cifar(golden: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(golden / "cifar_features.npz") as arrays:
        return arrays["features"].astype(np.float32), arrays["labels"]


def _close(ours: probe.Probe, theirs: probe.Probe) -> bool:
    scale = abs(theirs.weight).max()
    return bool(
        abs(ours.weight - theirs.weight).max() < 1e-9 * scale
        and abs(ours.bias - theirs.bias).max() < 1e-9
    )


def test_after_any_changes_it_is_the_fit_of_what_is_left(
    cifar: tuple[np.ndarray, np.ndarray],
) -> None:
    x, labels = cifar
    names = [f"class {k}" for k in range(10)]
    growing = GrowingProbe(x.shape[1])
    for row in range(60):  # fewer than features: probe.fit solves the other system
        growing.add(x[row : row + 1], names[labels[row]])
    assert _close(growing.fit(names), probe.fit(x[:60], labels[:60], 10))
    for k in range(10):
        rows = 60 + np.flatnonzero(labels[60:] == k)
        growing.add(x[rows], names[k])
    for row in range(100):
        growing.discard(x[row : row + 1], names[labels[row]])
    assert len(growing) == 400
    assert _close(growing.fit(names), probe.fit(x[100:], labels[100:], 10))
    growing.rename(names[0], "first")
    renamed = growing.fit(["first", *names[1:]])
    assert _close(renamed, probe.fit(x[100:], labels[100:], 10))


def test_order_of_classes_and_empty_ones(cifar: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = cifar[0][::13], cifar[1][::13] % 2
    growing = GrowingProbe(x.shape[1])
    growing.add(x[labels == 1], "b")
    growing.add(x[labels == 0], "a")
    growing.add(x[:0], "nothing")
    swapped = growing.fit(["b", "empty", "a"])
    expected = probe.fit(x, np.where(labels == 1, 0, 2), 3)
    assert _close(swapped, expected)


def test_features_that_never_change(cifar: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = cifar[0][::13].copy(), cifar[1][::13] % 2
    x[:, 3] = 1000.25
    growing = GrowingProbe(x.shape[1])
    for row in range(len(x)):
        growing.add(x[row : row + 1], "ab"[labels[row]])
    ours, theirs = growing.fit(["a", "b"]), probe.fit(x, labels, 2)
    assert abs(ours.scores(x) - theirs.scores(x)).max() < 1e-6


def test_nothing_to_fit_and_features_that_are_no_numbers() -> None:
    growing = GrowingProbe(4)
    with pytest.raises(ConfigError, match="no examples"):
        growing.fit(["a"])
    with pytest.raises(ConfigError, match="finite"):
        growing.add(np.full((1, 4), np.nan), "a")
    assert len(growing) == 0
