"""A run's folder: its settings, its log, and its models.

    run.json     what the run started with: data, recipe, classes, initial model
    split.json   which images were held out, unless the dataset has a validation split
    log.jsonl    one line per step and per epoch
    curves.png   loss and accuracy by step
    best/        raw or EMA weights, whichever validated best
    last/        the last raw weights
    state/       what it takes to resume
    README.md    a model card
    report.html  the best model's results on the validation images

    folds/       the runs of a cross-validation, without their models
    out-of-fold.csv  its predictions

    tensorboard/, wandb/, tracker-id: files of trackers

`best/` and `last/` are native model folders, or with `lora_rank` folders of adapters.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from mixer_mlx import __version__, adapters, checkpoint
from mixer_mlx.adapters import Adapters
from mixer_mlx.checkpoint import RUN_FILE
from mixer_mlx.errors import ConfigError, TrainingError
from mixer_mlx.model import MlpMixer
from mixer_mlx.runtime.atomic import replacing_file
from mixer_mlx.runtime.documents import read_json
from mixer_mlx.runtime.files import locked_folder
from mixer_mlx.runtime.macos import entries

from . import trackers
from .loop import Done, EpochDone, Event
from .pages import CURVE_FILE, REPORT_FILE, Judged, Results, card, validated, write_report
from .recipe import Recipe
from .run_log import LOG_FILE, Log
from .split import SPLIT_FILE, write_split
from .start import Start, first_difference
from .state import STATE_FILE, State

FOLDS, PREDICTIONS = "folds", "out-of-fold.csv"
"""Of a cross-validation: a run for each fold, and the predictions of all."""

_NAMES = {
    *(RUN_FILE, SPLIT_FILE, LOG_FILE, CURVE_FILE, REPORT_FILE, "README.md", "curves.png"),
    *("best", "last", "state", FOLDS, PREDICTIONS),
    *trackers.FILES,
}


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""In a name whose bytes aren't UTF-8."""


class Run:
    """The folder of a run in progress.

    At the end it gets a report.html with `report`, and its best model a temperature with
    `calibrate`.
    """

    def __init__(
        self, folder: Path, start: Start, *, report: bool = True, calibrate: bool = True
    ) -> None:
        self.folder, self.start = folder, start
        self.report, self.calibrate = report, calibrate
        self.log = Log(folder / LOG_FILE)

    @property
    def state_folder(self) -> Path:
        """Where `fit` saves its state."""
        return self.folder / "state"

    def complete(self) -> bool:
        """Whether the files that a run writes after its last step exist."""
        last = REPORT_FILE if self.report else "README.md"
        return (self.folder / last).exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands from writing to the folder, which is made, during the block.

        Raises TrainingError if one is at it, or if a file is in the folder's place.
        """
        if _LONE_SURROGATE.search(str(self.folder)):  # MLX couldn't write the weights
            raise TrainingError(
                f"Expected a name in UTF-8 for the run, not {self.folder}; choose another."
            )
        if self.folder.exists() and not self.folder.is_dir():
            raise TrainingError(f"{self.folder} is a file; choose another name for the run.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{self.folder} can't be written: {error.strerror}.") from error
        try:
            with locked_folder(self.folder) as ours:
                if not ours:
                    raise TrainingError(
                        f"Another command is writing to {self.folder}; wait for it, or choose "
                        "another name."
                    )
                yield
        finally:
            with suppress(OSError):  # if it is empty, nothing was begun
                self.folder.rmdir()

    def begin(self, *, force: bool = False) -> None:
        """Make the folder. Raises TrainingError if something else is in its place."""
        self._check_free(force=force)
        if self.start.base and self.start.base.lies_in(self.folder):
            raise TrainingError(
                f"{self.folder} holds the model that the adapters need; choose another name."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _empty(self.folder)
            if self.start.part is not None:
                write_split(self.folder, self.start.part)
            record = {**self.start.record(), "data": self.start.data}
            self._write(RUN_FILE, json.dumps(record, indent=2) + "\n")
        except OSError as error:
            raise TrainingError(f"{self.folder} can't be written: {error.strerror}.") from error

    def _check_free(self, *, force: bool) -> None:
        if not self.folder.exists():
            return
        names = {entry.name for entry in entries(self.folder)}
        foreign = {name for name in names if not _is_ours(name)} | _foreign_in_models(self.folder)
        if foreign or (names and RUN_FILE not in names):
            raise TrainingError(
                f"{self.folder} contains {min(foreign or names)}, which isn't part of a run; "
                "choose another name."
            )
        if names and not force:
            raise TrainingError(
                f"{self.folder} already contains a run; resume it (`Run.resumed`), replace it "
                "(`force=True`), or choose another name."
            )

    def resumed(self, model: MlpMixer) -> State | None:
        """The saved state, with its weights put into `model`; None if nothing was saved.

        Raises TrainingError if the run started with other settings or data.
        """
        if not has_state(self.folder):
            return None
        self.check_start()
        if not (self.state_folder / STATE_FILE).is_file():
            return None
        state = State.load(self.state_folder, model)
        self.log.rewind(state.progress.step)
        return state

    def check_start(self) -> None:
        """Raises TrainingError if the run in the folder started with other settings or data."""
        try:
            began = read_json(self.folder / RUN_FILE)
            if isinstance(recipe := began.get("recipe"), dict):  # an older one has fewer fields
                began["recipe"] = Recipe.from_dict(recipe).to_dict()
        except ConfigError as error:
            raise TrainingError(f"{self.folder / RUN_FILE} can't be used: {error}") from error
        began.pop("data", None)
        now = json.loads(json.dumps(self.start.record()))
        for key in ("train", "val"):
            if began.get("folds") == now["folds"] and began.get(key) != now[key]:
                raise TrainingError(
                    f"The {key} images changed since the run in {self.folder} started; restore "
                    "them, or start a new run."
                )
        if difference := first_difference(began, now):
            name, before, after = difference
            raise TrainingError(
                f"The run in {self.folder} started with {name} {before}, not {after}; give the "
                "same options, or start a new run."
            )

    def follow(
        self,
        events: Iterator[Event],
        model: MlpMixer,
        report: Callable[[Event], None] = lambda _: None,
    ) -> Iterator[Event]:
        """Write the log and the models as events pass; each is also passed to `report`."""
        try:
            with self.log.opened() as note:
                for event in events:
                    note(event)
                    self._note(event, model)
                    report(event)
                    yield event
        except OSError as error:
            raise TrainingError(
                f"{self.folder} can't be written: {error.strerror}; free some space, then "
                "resume the run (`Run.resumed`)."
            ) from error

    def _note(self, event: Event, model: MlpMixer) -> None:
        if isinstance(event, EpochDone):
            if event.best:
                event.state.fill(model, event.best)
                self._save_model("best", model)
            self.log.draw_grown(self.folder / "curves.png")
        if isinstance(event, Done):
            self.log.draw(self.folder / "curves.png")
            event.state.fill(model)
            self.finish(model)

    def finish(self, model: MlpMixer) -> None:
        """Write the last weights, the card and, from the best model, the report."""
        self._save_model("last", model)
        self._write("README.md", self.card())
        self._conclude(model)

    def _conclude(self, model: MlpMixer) -> None:
        """Calibrate the best model, and write the report."""
        if self.log.best() and (self.report or self.calibrate):
            judged = self._judged(model)
            if self.calibrate:
                judged.calibrate()
            if self.report:
                self._report(judged.results())

    def write_report(self, path: Path, base: MlpMixer | None = None) -> None:
        """Write the report of a run that has a best model. Raises MixerError.

        `base` is the model that adapters were trained from.
        """
        self._report(self._judged(base).results(), path)

    def _judged(self, base: MlpMixer | None) -> Judged:
        size = self.start.recipe.batch_size
        return Judged(self.folder / "best", self.start.val, size, base=base)

    def _report(self, results: Results, path: Path | None = None) -> None:
        best = self.log.best()
        where = best.where if best else "the last weights"
        if best and best.epoch >= 0:
            where += f", of {self.log.epochs()}"
        facts = [("best model", where), *self._facts()]
        cost = self.log.cost(self.start.recipe.batch_size)
        write_report(self.folder, results, self.start.recipe, facts, cost, path)

    def _save_model(self, name: str, model: MlpMixer) -> None:
        start = self.start
        by = {"trained_by": f"mixer-mlx {__version__}", "recipe": start.recipe_name}
        info = replace(start.info, source={**start.info.source, **by})
        rank, scale = start.recipe.lora_rank, start.recipe.lora_scale
        if start.base and rank:
            adapters.save(self.folder / name, model, info, Adapters(start.base, rank, scale))
        else:
            checkpoint.save(self.folder / name, model, info, force=True, beside=True)

    def _facts(self) -> list[tuple[str, str]]:
        start = self.start
        images, classes = len(start.train), len(start.train.classes)
        return [
            ("trained on", f"{images:,} images of {classes:,} classes"),
            ("made by", f"mixer {start.command}, recipe {start.recipe_name}"),
            ("started from", start.origin),
        ]

    def card(self) -> str:
        """A model card in Markdown: the model, its data, its recipe and its accuracy."""
        start = self.start
        return card(
            name=self.folder.name,
            command=start.command,
            origin=start.origin,
            config=start.info.config,
            recipe_name=start.recipe_name,
            recipe=start.recipe,
            counts=start.train.counts(),
            accuracy=self._accuracy(),
        )

    def _accuracy(self) -> str:
        """A sentence for the card."""
        return validated(self.log.best(), len(self.start.val))

    def _write(self, name: str, text: str) -> None:
        # Names of files may hold lone surrogates, which UTF-8 can't encode.
        with replacing_file(self.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def has_state(folder: Path) -> bool:
    """Whether the folder holds a run that can be resumed."""
    return (folder / "state" / STATE_FILE).is_file() or (folder / FOLDS).is_dir()


def _is_ours(name: str) -> bool:
    """Whether a run makes this file, perhaps under its temporary name."""
    return name in _NAMES or (name.startswith(".") and name[1:].rsplit(".", 1)[0] in _NAMES)


def _foreign_in_models(folder: Path) -> set[str]:
    """Files beside those of the models in `best/` and `last/`."""
    ours = {checkpoint.CONFIG_FILE, checkpoint.WEIGHTS_FILE, *adapters.FILES}
    return {
        f"{name}/{entry.name}"
        for name in ("best", "last")
        if (folder / name).is_dir()
        for entry in entries(folder / name)
        if entry.name not in ours
    }


def _empty(folder: Path) -> None:
    """Remove the files of an older run, and no others."""
    for path in folder.iterdir():
        if _is_ours(path.name) and path.is_dir():
            shutil.rmtree(path)
        elif _is_ours(path.name):
            path.unlink()
