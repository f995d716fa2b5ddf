"""A finished run, opened again from its folder: its images, as it split them, and its results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixer_mlx import checkpoint
from mixer_mlx.checkpoint import RUN_FILE
from mixer_mlx.data.dataset import Dataset, held_out
from mixer_mlx.errors import ConfigError, TrainingError
from mixer_mlx.runtime.documents import read_json

from .fingerprint import fingerprint
from .folds import Folds
from .recipe import Recipe
from .run import Run
from .split import read_split
from .start import Start


@dataclass(frozen=True)
class Record:
    """A run's `run.json`. Raises TrainingError for a folder without one, and for a damaged one."""

    folder: Path
    values: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read it."""
        path = folder / RUN_FILE
        if not path.is_file():
            raise TrainingError(f"{folder} isn't the folder of a run; it has no {RUN_FILE}.")
        try:
            return cls(folder, read_json(path))
        except ConfigError as error:
            raise TrainingError(f"{path} can't be used: {error}") from error

    @property
    def data(self) -> dict[str, str | None]:
        """Where its images were: the arguments of `read_splits`; empty for an older run."""
        found = self.values.get("data")
        return found if isinstance(found, dict) else {}

    @property
    def recipe(self) -> Recipe:
        """Its recipe."""
        try:
            return Recipe.from_dict(self.values.get("recipe") or {})
        except (ConfigError, TypeError) as error:
            raise TrainingError(f"{self.folder / RUN_FILE} can't be used: {error}") from error

    @property
    def val_fraction(self) -> float | None:
        """What makes `read_splits` hold out images, or use the validation split, as it did."""
        folds = self.values.get("folds")
        return (
            1 / folds if isinstance(folds, int) and folds > 1 else self.values.get("val_fraction")
        )


class Known:
    """`Hold` with the split that a run has stored, or that an older one drew."""

    def __init__(self, folder: Path) -> None:
        self.part = read_split(folder)
        self.dataset: Dataset | None = None

    def __call__(self, dataset: Dataset, fraction: float, seed: int) -> NDArray[np.bool_]:
        """Which images the run held out."""
        self.dataset = dataset
        if self.part is None:
            return held_out(dataset, fraction, seed)
        if len(self.part) != len(dataset):
            raise TrainingError(
                f"The images changed since the run: it had {len(self.part):,}, and now there are "
                f"{len(dataset):,}; restore them."
            )
        return self.part == 1


def reopened(record: Record, datasets: tuple[Dataset, Dataset], known: Known) -> Run:
    """The run, with its training and validation images.

    Raises TrainingError if they aren't those that it began with, and without a best model.
    """
    values, folder = record.values, record.folder
    if not (folder / "best").is_dir():
        raise TrainingError(f"{folder} has no best model yet; let the run reach a validation.")
    train, val = datasets
    folds = values.get("folds")
    if folds and known.dataset:
        train, val = known.dataset, known.dataset.take([])
    for name, dataset in (("training", train), ("validation", val)):
        if fingerprint(dataset) != values.get("train" if name == "training" else "val"):
            raise TrainingError(
                f"The {name} images aren't those that the run in {folder} began with; restore them."
            )
    start = Start(
        str(values.get("command")),
        record.recipe,
        str(values.get("recipe_name")),
        checkpoint.read_info(folder / "best"),
        train,
        val,
        str(values.get("origin")),
        values.get("val_fraction"),
        known.part,
        folds=folds,
    )
    run = (Folds if folds else Run)(folder, start)
    run.log.read()
    return run
