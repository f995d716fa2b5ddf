"""Temperatures by SciPy and reliability curves by scikit-learn -> tests/golden/calibration.npz.

pip install scipy scikit-learn && python tests/reference/make_calibration.py
"""

from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve

BINS = 15
ROWS = (40, 600)


def main() -> None:
    """Logits of a network that is too sure: three times those that the labels were drawn from."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1.2, (max(ROWS), 4))
    labels = np.array([rng.choice(4, p=row) for row in softmax(true, axis=1)])
    logits = (3 * true).astype(np.float32)
    found: dict[str, np.ndarray] = {"logits": logits, "labels": labels}
    for count in ROWS:
        x, y = logits[:count].astype(np.float64), labels[:count]

        def loss(temperature: float, x: np.ndarray = x, y: np.ndarray = y) -> float:
            return float(-log_softmax(x / temperature, axis=1)[np.arange(len(y)), y].mean())

        best = minimize_scalar(loss, bounds=(0.25, 8), method="bounded", options={"xatol": 1e-10})
        confidence = softmax(x, axis=1).max(axis=1)
        right = x.argmax(axis=1) == y
        accuracy, mean = calibration_curve(right, confidence, n_bins=BINS, strategy="uniform")
        found[f"{count}/temperature"] = np.array(best.x)
        found[f"{count}/accuracy"], found[f"{count}/confidence"] = accuracy, mean
    np.savez_compressed(Path(__file__).parents[1] / "golden" / "calibration.npz", **found)


if __name__ == "__main__":
    main()
