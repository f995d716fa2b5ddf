"""MixerFeatures in scikit-learn, held by scikit-learn's own checks (extra `sklearn`)."""

import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

import mixer_mlx
from mixer_mlx import ConfigError, ImageError, MixerError

pytest.importorskip("sklearn", reason="NOT RUN: needs the extra `sklearn`")

from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data

from mixer_mlx.sklearn import MixerFeatures


class FromRows(MixerFeatures):  # type: ignore[misc]
    """MixerFeatures for the rows of numbers that scikit-learn's checks make: they become images."""

    def fit(self, X: Any, y: object = None) -> "FromRows":
        super().fit(images_of(validate_data(self, X)))
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        check_is_fitted(self)
        return super().transform(images_of(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = tags.input_tags.string = False
        return tags


def images_of(rows: Any) -> NDArray[np.uint8]:
    """(N, features) -> (N, 32, 32, 3), each row repeated."""
    values = np.clip(np.asarray(rows, float) * 40 + 128, 0, 255).astype(np.uint8)
    return np.stack([np.resize(row, (32, 32, 3)) for row in values])


def test_scikit_learns_own_checks() -> None:
    subset = "check_methods_subset_invariance"
    results = check_estimator(
        FromRows(device="cpu", dtype="float32"),
        expected_failed_checks={subset: "to 1e-7; rounding depends on the size of a batch"},
        on_skip=None,
    )
    assert len(results) > 40
    others = {found["check_name"] for found in results if found["status"] != "passed"}
    assert others <= {"check_array_api_input", subset}  # the former needs SCIPY_ARRAY_API


def test_a_row_s_features_are_those_of_the_row_alone() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3))
    features = FromRows(device="cpu", dtype="float32").fit(rows)
    alone = [features.transform(row[None])[0] for row in rows]
    np.testing.assert_allclose(features.transform(rows), alone, rtol=0, atol=2e-6)


def test_features_are_the_pre_logits(cat: Path) -> None:
    classifier = mixer_mlx.load("cifar10", device="cpu", dtype="float32")
    images = mx.array(classifier.preprocess.normalize(classifier.preprocess(cat)))
    expected = np.array(classifier.model.pre_logits(images[None]))
    features = MixerFeatures(device="cpu", dtype="float32").fit_transform([str(cat), cat])
    assert (features.dtype, features.shape) == (np.float32, (2, 128))
    np.testing.assert_allclose(features, expected.repeat(2, axis=0), atol=1e-5)


def test_names_of_the_features(cat: Path) -> None:
    features = MixerFeatures().fit([cat])
    names = features.get_feature_names_out()
    assert (names[0], names[-1], len(names)) == ("mixerfeatures0", "mixerfeatures127", 128)


def test_in_a_pipeline_that_is_searched_pickled_and_cloned(photos: Path) -> None:
    paths = np.array(sorted(map(str, photos.glob("*/*.png"))))
    labels = [Path(path).parent.name for path in paths]
    pipeline = make_pipeline(MixerFeatures(device="cpu"), LogisticRegression())
    search = GridSearchCV(pipeline, {"mixerfeatures__normalize": [False, True]}, cv=2)
    assert search.fit(paths, labels).best_score_ > 0.9
    best = search.best_estimator_
    content = pickle.dumps(best)
    assert len(content) < 10_000  # without the weights
    expected = best.predict(paths)
    assert np.mean(expected == labels) > 0.9
    assert np.array_equal(pickle.loads(content).predict(paths), expected)  # noqa: S301
    assert np.array_equal(clone(best).fit(paths, labels).predict(paths), expected)


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    features = MixerFeatures(device="cpu").fit([])
    with pytest.raises(ImageError, match="no such file"):
        features.transform([tmp_path / "missing.png"])
    with pytest.raises(ConfigError, match="a list of images"):
        features.transform("cat.png")
    for wrong in ({"model": "resnet50"}, {"layer": "blocks.99"}):
        with pytest.raises(MixerError):
            MixerFeatures(**wrong).fit([])


def test_the_page_runs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "scikit-learn.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "[1. 1. 1.]\n['red' 'blue']\n"


def test_without_scikit_learn_the_extra_is_named() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import mixer_mlx.sklearn"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: mixer_mlx.sklearn needs scikit-learn; pip install" in run.stderr
