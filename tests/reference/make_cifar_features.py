"""Writes tests/golden/cifar_features.npz: features of CIFAR-10 images by the model in the package.

    mixer embed CIFAR10/test -m cifar10 -o features.npz
    python make_cifar_features.py features.npz

The first 50 test images (as JPEG files, test/<class>/<number>.jpg) of each class: `features`
(500, 128), float16, `labels` (500,), and `names`. The model was trained on the training images.
"""

import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "cifar_features.npz"
EACH = 50


def main() -> None:
    with np.load(sys.argv[1]) as arrays:
        names, vectors = arrays["names"], arrays["vectors"]
    classes = np.array([Path(name).parent.name for name in names])
    rows = np.concatenate([np.flatnonzero(classes == name)[:EACH] for name in np.unique(classes)])
    short = ["/".join(Path(name).parts[-2:]) for name in names[rows]]
    labels = np.repeat(np.arange(len(rows) // EACH, dtype=np.int32), EACH)
    features = vectors[rows].astype(np.float16)
    np.savez_compressed(GOLDEN, features=features, labels=labels, names=np.array(short))


if __name__ == "__main__":
    main()
