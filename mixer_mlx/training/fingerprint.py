"""What identifies a dataset, so that a run can tell whether it sees the same images again."""

import hashlib
from pathlib import Path, PurePath
from typing import Any

from mixer_mlx.checkpoint import RUN_FILE
from mixer_mlx.data.dataset import Dataset, hold_out, parted
from mixer_mlx.data.read import VAL_FRACTION
from mixer_mlx.errors import ConfigError
from mixer_mlx.labels import canonical
from mixer_mlx.runtime.documents import read_json

from .split import read_split


def fingerprint(dataset: Dataset) -> dict[str, object]:
    """Identifies a dataset: its number of images, and a checksum of their names and sizes.

    A name is that of the class and of the file, so that a folder may be moved; for a Parquet row,
    the file's name and size and the row's number.
    """
    digest = hashlib.sha256()
    for path, label in zip(dataset.paths, dataset.labels, strict=True):
        size = _size(path) if isinstance(path, Path) else path.size
        name = f"{dataset.classes[label]}/{canonical(PurePath(str(path)).name)} {size}\n"
        digest.update(name.encode(errors="surrogateescape"))
    return {"images": len(dataset), "sha256": digest.hexdigest()}


def _size(path: Path) -> int:
    """In bytes; -1 for a file that a list names and that is missing."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def trained_on(folder: Path, dataset: Dataset) -> int:
    """How many of these images the run in `folder` was trained on, as far as its record shows."""
    if not (folder / RUN_FILE).is_file():
        return 0
    began: Any = read_json(folder / RUN_FILE)
    fraction, recipe = began.get("val_fraction") or VAL_FRACTION, began.get("recipe")
    if not isinstance(fraction, float) or not isinstance(recipe, dict):
        raise ConfigError(f"{folder / RUN_FILE} is damaged; use an intact copy.")
    part = read_split(folder)
    if part is not None and len(part) == len(dataset):
        rest, _ = parted(dataset, part > 0)
    else:
        rest, _ = hold_out(dataset, fraction, recipe.get("seed", 0))
    same = [part for part in (dataset, rest) if fingerprint(part) == began.get("train")]
    return len(same[0]) if same else 0
