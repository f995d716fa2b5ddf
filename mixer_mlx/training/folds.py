"""Cross-validation: a run for each fold, judged on images that it hasn't seen, then one of all.

    folds/1/         the first fold's run; once it is judged, logits.npz in place of its models
    out-of-fold.csv  each image's prediction by the model that hasn't seen it
    best/, last/     a model trained on all images

The last model has no validation images, so it takes as many epochs as the median fold's best.
"""

import csv
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from mixer_mlx import checkpoint
from mixer_mlx.analysis.evaluate import Metrics
from mixer_mlx.analysis.interval import with_interval
from mixer_mlx.calibration import calibrate
from mixer_mlx.choices import WeightsName
from mixer_mlx.data.dataset import Dataset, parted
from mixer_mlx.errors import TrainingError
from mixer_mlx.model import MlpMixer
from mixer_mlx.runtime.atomic import replacing_file

from .loop import Done, Event
from .pages import Judged, Results, write_report
from .recipe import Recipe
from .run import FOLDS, PREDICTIONS, Run
from .run_log import Best, best_of
from .start import Start

_LOGITS = "logits.npz"


@dataclass(frozen=True)
class Fold:
    """A fold, from 1, its numbers of images, and the best validation of its run."""

    number: int
    trained_on: int
    best: Best


class Folds(Run):
    """The folder of a cross-validation; `start.part` is each image's fold, from 1.

    `start.train` are all images, `start.val` none, and `start.folds` how many folds there are.
    """

    @property
    def _part(self) -> NDArray[np.integer]:
        if self.start.part is None:
            raise TrainingError("Expected `part`, the fold of each image.")
        return self.start.part

    @property
    def numbers(self) -> range:
        """The folds' numbers."""
        return range(1, (self.start.folds or 0) + 1)

    def complete(self) -> bool:
        """Whether everything is written."""
        return super().complete() and (self.folder / PREDICTIONS).exists()

    def datasets(self, number: int) -> tuple[Dataset, Dataset]:
        """A fold's training and validation images."""
        return parted(self.start.train, self._part == number)

    def fold(self, number: int, start: Start) -> Run:
        """The run of a fold."""
        folder = self.folder / FOLDS / str(number)
        return Run(folder, start, report=False, calibrate=False)

    def is_judged(self, number: int) -> bool:
        """Whether the fold's predictions are kept."""
        return (self.folder / FOLDS / str(number) / _LOGITS).is_file()

    def judge(self, number: int, run: Run, model: MlpMixer) -> None:
        """Keep the logits of the fold's best model for the images that it hasn't seen.

        `model` is the one that was trained. The fold's saved models are removed then.
        """
        size = run.start.recipe.batch_size
        judged = Judged(run.folder / "best", run.start.val, size, base=model)
        rows = np.flatnonzero(self._part == number)
        seen = [row for i, row in enumerate(rows) if i not in judged.images.unreadable]
        with replacing_file(run.folder / _LOGITS) as temporary, temporary.open("wb") as file:
            np.savez(file, rows=np.array(seen, np.int64), logits=judged.logits)
        for name in ("best", "last", "state"):
            shutil.rmtree(run.folder / name, ignore_errors=True)

    def results(self) -> list[Fold]:
        """What each fold reached. Raises TrainingError if one lacks its log."""
        found = []
        for number in self.numbers:
            path = self.folder / FOLDS / str(number) / "log.jsonl"
            if not (best := best_of(path)):
                raise TrainingError(f"{path} has no validation; start a new run (`force=True`).")
            found.append(Fold(number, int((self._part != number).sum()), best))
        return found

    def steps(self, steps_per_epoch: int) -> int:
        """How long to train on all images: as many epochs as the median fold's best took."""
        epochs = []
        for fold in self.results():
            of_fold = max(1, fold.trained_on // self.start.recipe.batch_size)
            epochs.append(fold.best.step / of_fold)
        return round(median(epochs) * steps_per_epoch)

    @cached_property
    def metrics(self) -> Metrics:
        """Those of all images, each by the model that hadn't seen it."""
        return self._results.metrics()

    @cached_property
    def _rows(self) -> NDArray[np.intp]:
        """The images that could be read."""
        return np.sort(np.concatenate([rows for rows, _ in self._kept()]))

    @cached_property
    def _results(self) -> Results:
        rows, logits = map(np.concatenate, zip(*self._kept(), strict=True))
        whole, order = self.start.train, np.argsort(rows)
        entries = [whole.paths[row] for row in self._rows]
        labels = whole.labels[self._rows]
        unreadable = len(whole) - len(rows)
        return Results(self.start.info, entries, logits[order], labels, unreadable)

    def _kept(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """What `judge` kept of each fold: images, and their logits (N, classes)."""
        for number in self.numbers:
            with np.load(self.folder / FOLDS / str(number) / _LOGITS) as file:
                yield file["rows"], file["logits"]

    def _note(self, event: Event, model: MlpMixer) -> None:
        if isinstance(event, Done):
            event.state.fill(model, self._kept_weights(event.state.recipe))
            self._save_model("best", model)
        super()._note(event, model)

    def _kept_weights(self, recipe: Recipe) -> WeightsName:
        """Those of the end, or if most folds whose training helped kept these, those halfway."""
        kept = [fold.best.weights for fold in self.results() if fold.best.step]
        if 2 * kept.count("halfway") > len(kept):
            return "halfway"
        return "ema" if recipe.ema_decay else "raw"

    def finish_untrained(self, model: MlpMixer) -> None:
        """Finish with a model whose head was fitted, as no fold's training improved on it."""
        self._save_model("best", model)
        self.finish(model)

    def _conclude(self, model: MlpMixer) -> None:
        """Calibrate the model by the predictions of all folds, and write them and the report."""
        results, best = self._results, self.folder / "best"
        info = checkpoint.read_info(best)
        if self.calibrate:
            info = info.replace(calibration=calibrate(results.logits, results.labels))
            checkpoint.write_info(best, info)
        results = replace(results, info=info)
        self._write_predictions(results)
        if self.report:
            self._report(results)

    def write_report(self, path: Path, base: MlpMixer | None = None) -> None:
        """Write the report of a run that is complete. Raises MixerError."""
        for number in self.numbers:
            if not self.is_judged(number):
                raise TrainingError(f"Fold {number} of {self.folder} isn't done; resume the run.")
        info = checkpoint.read_info(self.folder / "best")
        self._report(replace(self._results, info=info), path)

    def _report(self, results: Results, path: Path | None = None) -> None:
        facts = [("accuracy", self._accuracy()), *self._facts()]
        cost = self.log.cost(self.start.recipe.batch_size)
        write_report(self.folder, results, self.start.recipe, facts, cost, path)

    def _write_predictions(self, results: Results) -> None:
        whole = self.start.train
        names = whole.names()
        with (
            replacing_file(self.folder / PREDICTIONS) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            for row, outcome in zip(self._rows.tolist(), results.outcomes(), strict=True):
                true, predicted = names[outcome.target], names[outcome.predicted]
                measured = f"{outcome.probability:.6f}", f"{outcome.loss:.6f}"
                image = str(whole.paths[row])
                table.writerow([row, image, self._part[row], true, predicted, *measured])

    def _accuracy(self) -> str:
        metrics = self.metrics
        return (
            f"{with_interval(metrics.top1, metrics.images)} in {self.start.folds} folds: each of "
            f"{metrics.images:,} images by a model that hadn't seen it."
        )


COLUMNS = ("index", "image", "fold", "class", "predicted", "probability", "loss")
"""Of out-of-fold.csv: `index` is the image's place in the dataset; the loss is in nats."""
