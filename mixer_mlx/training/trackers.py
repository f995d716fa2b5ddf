"""Logs a run's metrics to TensorBoard, Weights & Biases, or Trackio.

    with opened(["tensorboard"], run.folder, config) as report:
        for event in run.follow(fit(...), model):
            report(event)

Their libraries are optional, and imported when a tracker is opened.
"""

import contextlib
import importlib
import io
import math
import os
import secrets
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixer_mlx.errors import ConfigError, TrainingError
from mixer_mlx.runtime.atomic import replacing_file
from mixer_mlx.runtime.documents import read_text
from mixer_mlx.runtime.files import open_output

from .loop import EpochDone, Event, StepDone

PROJECT = "mixer-mlx"
ID_FILE = "tracker-id"
"""In the run's folder: the id by which Weights & Biases and Trackio resume the run."""

MAX_ID_BYTES = 1024

FILES = ("tensorboard", "wandb", ID_FILE)
"""Files of trackers in a run's folder."""

_NEEDS = {
    "tensorboard": ("tensorboardX.record_writer", "masked_crc32c", "'mixer-mlx[tensorboard]'"),
    "wandb": ("wandb", "init", "'mixer-mlx[wandb]'"),
    "trackio": ("trackio", "init", "trackio"),
}


class Tracker(ABC):
    """Logs metrics. Steps are in order; one may come twice, with other names."""

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close(failed=kind is not None)
        except Exception as error:
            if kind is None:  # else the error that ended the run matters, not this one
                raise TrainingError(
                    f"The run is complete, but a tracker failed at the end: {error}"
                ) from error

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the metrics of a step."""

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """Write what is left; `failed` if the run was interrupted or raised an error."""


def check(names: Sequence[str]) -> None:
    """Raise TrainingError if a tracker's library is missing."""
    for name in names:
        module, needed, package = _NEEDS[name]
        try:
            getattr(importlib.import_module(module), needed)
        # A folder called wandb, which runs contain, can be imported as an empty package.
        except (ImportError, AttributeError) as error:
            raise TrainingError(
                f"The tracker {name} needs a library that isn't installed; pip install {package}."
            ) from error


def metrics_of(event: Event) -> dict[str, float]:
    """An event's metrics, if finite: fractions from 0 to 1, losses in nats."""
    values: dict[str, float] = {}
    if isinstance(event, StepDone):
        for name in ("loss", "accuracy", "lr", "gradient_norm", "images_per_second"):
            values[f"train/{name}"] = getattr(event, name)
    if isinstance(event, EpochDone):
        for group, metrics in (("val", event.raw), ("val_ema", event.ema)):
            for name in ("top1", "top5", "loss") if metrics else ():
                values[f"{group}/{name}"] = getattr(metrics, name)
    return {name: value for name, value in values.items() if math.isfinite(value)}


@contextlib.contextmanager
def opened(
    names: Sequence[str],
    folder: Path,
    config: Mapping[str, object],
    *,
    done: int = 0,
    quiet: bool = False,
) -> Iterator[Callable[[Event], None]]:
    """A function that logs a run's events; trackers are closed when the block ends.

    `folder` is the run's and exists; `config` is shown beside the metrics. A resumed run starts
    after `done` steps: metrics of later steps, logged before, are replaced if the tracker supports
    it. Raises TrainingError for a tracker that can't start.
    """
    check(names)
    with contextlib.ExitStack() as closing:
        trackers = [
            closing.enter_context(_start(name, folder, config, done, quiet))
            for name in dict.fromkeys(names)
        ]

        def report(event: Event) -> None:
            if isinstance(event, StepDone | EpochDone):
                for tracker in trackers:
                    tracker.log(metrics_of(event), event.step)

        yield report


def _start(
    name: str, folder: Path, config: Mapping[str, object], done: int, quiet: bool
) -> Tracker:
    try:
        if name == "tensorboard":
            return TensorBoard(folder / "tensorboard", done)
        if name == "wandb":
            return WandB(folder, config, quiet=quiet)
        return Trackio(folder, config, quiet=quiet)
    except Exception as error:  # whatever a library that isn't ours may raise
        raise TrainingError(f"{name} can't start: {' '.join(str(error).split())}") from error


class TensorBoard(Tracker):
    """An event file, to which every step is written at once, as to the run's own log.

    Without tensorboardX's SummaryWriter: its thread dies when the disk is full, and the run would
    wait for it forever.
    """

    def __init__(self, folder: Path, done: int) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import masked_crc32c

        self._event, self._summary, self._checksum = Event, Summary, masked_crc32c
        folder.mkdir(exist_ok=True)
        # Readers sort by name; a run may be resumed within a second.
        name = f"events.out.tfevents.{time.time():.0f}.{done:012}"
        self._file = open_output(folder / name, "ab", buffering=0)
        self._write(file_version="brain.Event:2")
        if done:  # discards later steps in earlier files
            self._write(step=done + 1, session_log=SessionLog(status=SessionLog.START))

    def log(self, values: Mapping[str, float], step: int) -> None:
        parts = [self._summary.Value(tag=name, simple_value=x) for name, x in values.items()]
        self._write(step=step, summary=self._summary(value=parts))

    def _write(self, **fields: Any) -> None:
        """Write a record: the event's length and its checksum, the event and its checksum."""
        data = self._event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        sums = [struct.pack("<I", self._checksum(part)) for part in (length, data)]
        self._file.write(length + sums[0] + data + sums[1])

    def close(self, *, failed: bool) -> None:
        self._file.close()


class WandB(Tracker):
    """A run of Weights & Biases, resumed by its id, with its files in the folder.

    The project is WANDB_PROJECT, or mixer-mlx; otherwise its own settings apply.
    """

    def __init__(self, folder: Path, config: Mapping[str, object], *, quiet: bool) -> None:
        wandb = importlib.import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=folder.resolve().name,
            id=run_id(folder),
            resume="allow",
            dir=str(folder),
            config=dict(config),
            # Otherwise it would capture our output, progress bar included.
            settings=wandb.Settings(console="off", silent=quiet),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class Trackio(Tracker):
    """A run of Trackio, in its own database, resumed by its name."""

    def __init__(self, folder: Path, config: Mapping[str, object], *, quiet: bool) -> None:
        self._quiet = quiet
        with self._stdout_to_stderr():
            self._run = importlib.import_module("trackio").init(
                project=PROJECT,
                name=f"{folder.resolve().name}-{run_id(folder)}",
                resume="allow",
                config=dict(config),
            )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self, *, failed: bool) -> None:
        with self._stdout_to_stderr():
            self._run.finish()

    def _stdout_to_stderr(self) -> contextlib.redirect_stdout[Any]:
        return contextlib.redirect_stdout(io.StringIO() if self._quiet else sys.stderr)


def run_id(folder: Path) -> str:
    """A run's id for trackers: random, and kept in its folder."""
    path = folder / ID_FILE
    if not path.exists():
        with replacing_file(path) as temporary:
            temporary.write_text(secrets.token_hex(4) + "\n", encoding="ascii")
    try:
        return read_text(path, "ascii", limit=MAX_ID_BYTES).strip()
    except ConfigError as error:
        raise TrainingError(f"{path} can't be used: {error}") from error
