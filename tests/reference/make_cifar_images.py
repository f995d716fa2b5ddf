"""Writes tests/golden/cifar_images.zip: images of CIFAR-10, as they are.

    python make_cifar_images.py CIFAR10/test

The first 40 test images (JPEG files, <class>/<number>.jpg) of cats and of dogs.
"""

import sys
import zipfile
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "cifar_images.zip"


def main() -> None:
    root = Path(sys.argv[1])
    with zipfile.ZipFile(GOLDEN, "w") as archive:
        for name in ("cat", "dog"):
            for path in sorted((root / name).iterdir())[:40]:
                info = zipfile.ZipInfo(f"{name}/{path.name}")  # without the file's date
                archive.writestr(info, path.read_bytes())


if __name__ == "__main__":
    main()
