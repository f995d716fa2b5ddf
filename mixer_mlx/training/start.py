"""What a run starts with, as its `run.json` has it, and whether two starts are the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.adapters import Base
from mixer_mlx.data.dataset import Dataset
from mixer_mlx.model_info import ModelInfo

from .fingerprint import fingerprint
from .recipe import Recipe


@dataclass(frozen=True)
class Start:
    """What a run starts with: `command` is "train" or "fine-tune", `origin` the model's source.

    `val_fraction` is what was held out of each class, None for a validation split or the default;
    `part` says which images, see `split.write_split`.
    `base` is the model that adapters are trained from, for a recipe with them.
    `folds` is the number of a cross-validation.
    `data` says where the images are, as arguments of `read_splits`; they may be moved.
    """

    command: str
    recipe: Recipe
    recipe_name: str
    info: ModelInfo
    train: Dataset
    val: Dataset
    origin: str
    val_fraction: float | None = None
    part: NDArray[np.integer] | None = None
    base: Base | None = None
    folds: int | None = None
    data: Mapping[str, str | None] | None = None

    def record(self) -> dict[str, object]:
        """The content of `run.json`: what must be the same to resume the run."""
        return {
            "folds": self.folds,
            "command": self.command,
            "origin": self.origin,
            "recipe_name": self.recipe_name,
            "recipe": self.recipe.to_dict(),
            "config": self.info.to_dict(),
            "train": fingerprint(self.train),
            "val": fingerprint(self.val),
            "val_fraction": self.val_fraction,
            **({"base": vars(self.base)} if self.base else {}),
        }

    def settings(self) -> dict[str, object]:
        """What trackers show beside the metrics; nothing of the data but its size."""
        return {
            "command": self.command,
            "origin": self.origin,
            "recipe_name": self.recipe_name,
            "classes": len(self.train.classes),
            "training_images": len(self.train),
            "validation_images": len(self.val),
            **self.recipe.to_dict(),
        }


def first_difference(
    began: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[str, object, object] | None:
    """The innermost field that differs, e.g. "epochs", with its value before and now."""
    for key in [*now, *(key for key in began if key not in now)]:
        before, after = began.get(key), now.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            if inner := first_difference(before, after):
                return inner
        elif before != after:
            return key, before, after
    return None
