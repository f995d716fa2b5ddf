"""The validation images of a run: near-duplicates kept together, or those it began with."""

from typing import TYPE_CHECKING

from mixer_mlx.errors import ConfigError, TrainingError

from ..terminal import output
from ..terminal.progress import progress
from .options import TrainingOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mixer_mlx.data.near import Groups
    from mixer_mlx.data.read import Dataset
    from mixer_mlx.runtime.ranks import Ranks


class Splitter:
    """`Hold` for a run; `part` is what `split.write_split` takes, None with a validation split."""

    def __init__(self, asked: TrainingOptions, ranks: "Ranks") -> None:
        self.asked, self.ranks = asked, ranks
        self.part: NDArray[np.integer] | None = None
        self.groups: Groups | None = None
        self._dataset: Dataset | None = None

    def __call__(self, dataset: "Dataset", fraction: float, seed: int) -> "NDArray[np.bool_]":
        """Which images to hold out, the same on all ranks."""
        import numpy as np

        part: list[int] = []
        if self.ranks.rank == 0:
            part = self._part(dataset, fraction, seed).tolist()
        self.part = np.array(self.ranks.broadcast(part), np.intp)
        self._dataset = dataset
        return self.part == 1

    @property
    def dataset(self) -> "Dataset":
        """All images that were split."""
        if self._dataset is None:
            raise ConfigError("Expected a dataset whose images are split here.")
        return self._dataset

    def _part(self, dataset: "Dataset", fraction: float, seed: int) -> "NDArray[np.integer]":
        from mixer_mlx.data.dataset import held_out
        from mixer_mlx.data.near import folds, held_out_together, near_duplicates
        from mixer_mlx.training.run import has_state
        from mixer_mlx.training.split import read_split

        run = self.asked.out
        if self.asked.resume and run and has_state(run):
            known = read_split(run)
            if known is None:  # the run is older than such files
                return held_out(dataset, fraction, seed).astype(int)
            if len(known) != len(dataset):
                raise TrainingError(
                    f"The images changed since the run in {run} started: it had {len(known):,}, "
                    f"and now there are {len(dataset):,}; restore them, or start a new run."
                )
            return known
        with progress(not self.asked.quiet, [], len(dataset)) as tick:
            self.groups = near_duplicates(dataset, tick)
        if self.asked.folds:
            return 1 + folds(dataset, self.asked.folds, seed, self.groups)
        return held_out_together(dataset, fraction, seed, self.groups).astype(int)

    def say(self) -> None:
        """Say what was kept together, if anything was."""
        from mixer_mlx.data.notes import listed

        if self.asked.quiet or not self.groups:
            return
        if several := self.groups.several():
            count = "a group" if len(several) == 1 else f"{len(several):,} groups"
            where = "in two folds" if self.asked.folds else "on both sides of the split"
            output.say(
                f"Kept {sum(map(len, several)):,} near-duplicate images together, in {count}: none "
                f"is {where}."
            )
        if self.groups.simple:
            output.say(
                f"Most images of {listed(self.groups.simple)} look alike: only identical ones were "
                "kept together, so if they are frames of a film, validation is too easy."
            )
