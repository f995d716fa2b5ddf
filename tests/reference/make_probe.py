"""Writes tests/golden/probe.npz: scikit-learn's Ridge on made features.

scikit-learn 1.9.1 and nothing of this project. 40 noisy features of three classes, standardised by
mean and standard deviation (+ 1e-5), with a constant feature of 100 and targets of -1 and +1:
Ridge(alpha=2**10, fit_intercept=False, solver="cholesky"), on 24 examples (fewer than features) and
on 300. For each: `<n>/coef` (3, 41) of the standardised features, `<n>/scores` (60, 3) and
`<n>/leave_one_out` (n, 3), the scores of each training example by a Ridge fitted on the others
(standardised by all).

Run it once, from anywhere: python make_probe.py. The file it wrote is frozen.
"""

from functools import partial
from pathlib import Path

import numpy as np
from sklearn.linear_model import Ridge

GOLDEN = Path(__file__).parents[1] / "golden" / "probe.npz"
CLASSES, FEATURES, TEST = 3, 40, 60


def ridge(x: np.ndarray, y: np.ndarray) -> Ridge:
    return Ridge(alpha=2.0**10, fit_intercept=False, solver="cholesky").fit(x, y)


def prepared(rows: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return np.hstack([(rows - mean) / std, np.full((len(rows), 1), 100.0)])


def main() -> None:
    rng = np.random.default_rng(0)
    centres = 0.6 * rng.normal(size=(CLASSES, FEATURES))
    scales, shifts = np.exp(rng.normal(size=FEATURES)), rng.normal(size=FEATURES)
    labels = rng.integers(0, CLASSES, 300 + TEST).astype(np.int32)
    features = centres[labels] + rng.normal(size=(300 + TEST, FEATURES))
    features = (features * scales + shifts).astype(np.float32)
    arrays = {"features": features, "labels": labels}
    for count in (24, 300):
        x = features[:count].astype(np.float64)
        mean, std = x.mean(0), x.std(0) + 1e-5

        standard = partial(prepared, mean=mean, std=std)
        y = 2.0 * np.eye(CLASSES)[labels[:count]] - 1
        model = ridge(standard(x), y)
        arrays[f"{count}/coef"] = model.coef_
        arrays[f"{count}/scores"] = model.predict(standard(features[300:].astype(np.float64)))
        every = np.arange(count)
        arrays[f"{count}/leave_one_out"] = np.stack(
            [
                ridge(standard(x)[every != i], y[every != i]).predict(standard(x)[i : i + 1])[0]
                for i in every
            ]
        )
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    main()
