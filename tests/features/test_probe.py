"""The ridge solution is scikit-learn's, see tests/reference/make_probe.py."""

from pathlib import Path

import numpy as np
import pytest

from mixer_mlx.errors import ConfigError
from mixer_mlx.features import probe

Golden = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def theirs(golden: Path) -> Golden:
    with np.load(golden / "probe.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("count", [24, 300])
def test_ridge_is_scikit_learns(theirs: Golden, count: int) -> None:
    x, labels = theirs["features"][:count], theirs["labels"][:count]
    ours = probe.fit(x, labels, 3)
    std = x.astype(np.float64).std(axis=0) + 1e-5
    assert abs(ours.weight * std - theirs[f"{count}/coef"][:, :-1]).max() < 1e-10
    scores, expected = ours.scores(theirs["features"][300:]), theirs[f"{count}/scores"]
    assert abs(scores - expected).max() < 1e-9
    assert np.array_equal(scores.argmax(axis=1), expected.argmax(axis=1))
    right = scores.argmax(axis=1) == theirs["labels"][300:]
    assert 0.5 < right.mean() < 1


@pytest.mark.parametrize("count", [24, 300])
def test_leave_one_out_is_that_of_n_fits(theirs: Golden, count: int) -> None:
    ours = probe.leave_one_out(theirs["features"][:count], theirs["labels"][:count], 3)
    assert abs(ours - theirs[f"{count}/leave_one_out"]).max() < 1e-9


def test_out_of_fold_scores_come_from_the_other_folds(theirs: Golden) -> None:
    x, labels = theirs["features"][:60], theirs["labels"][:60]
    scores = probe.out_of_fold(x, labels, 3, folds=60)  # each by a probe of the 59 others
    for i in (0, 17, 59):
        others = np.arange(60) != i
        alone = probe.fit(x[others], labels[others], 3).scores(x[i : i + 1])[0]
        assert abs(scores[i] - alone).max() < 1e-9
    changed = labels.copy()
    changed[:3] = (changed[:3] + 1) % 3
    again = probe.out_of_fold(x, changed, 3)
    assert abs(again - probe.out_of_fold(x, labels, 3)).max() > 0.01


def test_losses_and_scale() -> None:
    scores = np.array([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]])
    labels = np.array([0, 0, 1, 1])
    assert probe.losses(scores, labels) == pytest.approx([0.126928, 0.126928, 0.126928, 2.126928])
    # The softmax of s * scores is best where its probability is the fraction that is right: 3/4.
    assert probe.scale_for(scores, labels) == 1.0  # log(3) / 2 is below the least
    assert probe.scale_for(scores / 8, labels) == pytest.approx(4 * np.log(3), rel=0.1)


def test_few_examples_do_not_make_certain() -> None:
    labels = np.arange(38) % 2
    scores = np.where(labels[:, None] == np.arange(2), 1.0, -1.0)
    # log(1 + exp(-2 s)) is 1 / 40 for s = 1.84, and the next of the powers of 2 ** 0.25 is 2.
    assert probe.scale_for(scores, labels) == 2


def test_a_scaled_probe_predicts_the_same(theirs: Golden) -> None:
    ours = probe.fit(theirs["features"][:300], theirs["labels"][:300], 3)
    scores = ours.scores(theirs["features"][300:])
    assert np.allclose(ours.scaled(4).scores(theirs["features"][300:]), 4 * scores)


def test_what_can_not_be_fitted(theirs: Golden) -> None:
    x, labels = theirs["features"][:10], theirs["labels"][:10]
    for features, some, l2 in (
        (x[:0], labels[:0], 1.0),
        (x, labels[:9], 1.0),
        (x[None], labels, 1.0),
        (x * np.inf, labels, 1.0),
        (x, labels, 0.0),
    ):
        with pytest.raises(ConfigError):
            probe.fit(features, some, 3, l2=l2)
