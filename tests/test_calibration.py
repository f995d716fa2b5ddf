"""Temperature and reliability are SciPy's and scikit-learn's, see reference/make_calibration.py."""

import dataclasses
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mixer_mlx import calibration, load
from mixer_mlx.calibration import Calibration
from mixer_mlx.checkpoint import read_info, write_info
from mixer_mlx.convert.export.formats import export
from mixer_mlx.errors import CheckpointError, ConfigError

Golden = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def theirs(golden: Path) -> Golden:
    with np.load(golden / "calibration.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("count", [40, 600])
def test_the_temperature_is_scipys(theirs: Golden, count: int) -> None:
    ours = calibration.fit_temperature(theirs["logits"][:count], theirs["labels"][:count])
    assert 2 < ours < 4
    assert ours == pytest.approx(float(theirs[f"{count}/temperature"]), abs=1e-6)


@pytest.mark.parametrize("count", [40, 600])
def test_the_bins_are_scikit_learns(theirs: Golden, count: int) -> None:
    logits, labels = theirs["logits"][:count], theirs["labels"][:count]
    confidence, right = calibration.confidences(logits), logits.argmax(axis=1) == labels
    bins = calibration.reliability(confidence, right)
    assert [b.accuracy for b in bins] == pytest.approx(theirs[f"{count}/accuracy"])
    assert [b.confidence for b in bins] == pytest.approx(theirs[f"{count}/confidence"])
    assert sum(b.images for b in bins) == count


@pytest.mark.parametrize(("count", "factor"), [(5, 1.0), (40, 1.0), (600, 1.0), (20, 0.1)])
def test_few_images_move_the_temperature_less(theirs: Golden, count: int, factor: float) -> None:
    """The most probable of a fine grid, by the density written out."""
    logits, labels = factor * theirs["logits"][:count].astype(np.float64), theirs["labels"][:count]
    grid = np.geomspace(0.25, 4, 4001)
    densities = []
    for temperature in grid:
        soft = np.exp(logits / temperature)
        right = (soft / soft.sum(axis=1, keepdims=True))[np.arange(count), labels]
        densities.append(np.log(right).sum() - np.log(temperature) ** 2 / (2 * 0.35**2))
    ours = calibration.fit_temperature(logits, labels, 0.35)
    assert ours == pytest.approx(grid[int(np.argmax(densities))], rel=2e-3)
    free = calibration.fit_temperature(logits, labels)
    assert abs(np.log(ours)) < abs(np.log(free))


def test_calibration_lowers_the_error(theirs: Golden) -> None:
    found = calibration.calibrate(theirs["logits"], theirs["labels"])
    assert found.ece_before > 0.15
    assert found.ece_after < 0.06
    assert found.images == 600


@pytest.mark.parametrize(("factor", "bound"), [(1000, 0.25), (0.001, 0.25), (-1, 4.0)])
def test_the_temperature_is_bounded(factor: float, bound: float) -> None:
    """All right: the surer the better. All wrong: the less sure."""
    logits = factor * np.eye(3)
    assert calibration.fit_temperature(logits, np.arange(3)) == pytest.approx(bound)


def test_expected_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.51])
    right = np.array([True, False, True, False])
    # 2 of 4 images at 0.95, half of them right; 2 at a mean of 0.53, half of them right.
    assert calibration.ece(confidence, right, bins=2) == pytest.approx(abs(0.74 - 0.5))
    assert calibration.ece(confidence, right, bins=10) == pytest.approx(0.5 * 0.45 + 0.5 * 0.03)


def test_the_threshold_leaves_enough_right_images() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.7, 0.6])
    right = np.array([True, True, True, False, True])
    assert calibration.threshold(confidence, right, 0.95) == 0.8
    assert calibration.threshold(confidence, right, 0.75) == 0.6
    assert calibration.threshold(confidence[2:], ~right[2:], 0.95) is None


def test_a_calibrated_model_divides_its_logits(tmp_path: Path) -> None:
    plain = load("cifar10", dtype="float32", device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    info = plain.info.replace(calibration=Calibration(2.0, 0.2, 0.1, 50, 0.8))
    plain.replace(info=info).save(tmp_path / "model")
    found = load(str(tmp_path / "model"))
    assert found.info.calibration == info.calibration
    expected = np.array(plain.forward(pixels)) / 2
    assert np.abs(np.array(found.forward(pixels)) - expected).max() < 1e-6
    shown = found.predictions(pixels, k=1)[0][0].probability
    soft = np.exp(expected[0]) / np.exp(expected[0]).sum()
    assert shown == pytest.approx(soft.max(), abs=1e-5)
    assert found.with_head(3).info.calibration is None
    write_info(tmp_path / "model", plain.info)
    assert "calibration" not in json.loads((tmp_path / "model" / "config.json").read_text())


def test_other_programs_get_the_divided_head(tmp_path: Path) -> None:
    plain = load("cifar10", dtype="float32")
    info = plain.info.replace(calibration=Calibration(2.0, 0.2, 0.1, 50))
    export(plain.model, info, tmp_path / "timm", format="timm")
    theirs = mx.load(str(tmp_path / "timm" / "model.safetensors"))
    assert isinstance(theirs, dict)
    assert np.array_equal(theirs["head.weight"] * 2, plain.model.head.weight)
    assert np.array_equal(theirs["head.bias"] * 2, plain.model.head.bias)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"temperature": 0}, "temperature"), ({"ece_after": 2}, "ece_after"), ({"x": 1}, "unknown")],
)
def test_a_damaged_calibration_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    good = dataclasses.asdict(Calibration(2.0, 0.2, 0.1, 50))
    with pytest.raises(ConfigError, match=message):
        Calibration.from_dict({**good, **change})
    plain = load("cifar10")
    plain.save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    values = json.loads(path.read_text()) | {"calibration": {**good, **change}}
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=message):
        read_info(tmp_path / "model")
