"""A run's log: one line of JSON per step and per epoch."""

import dataclasses
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import get_args

from mixer_mlx.analysis.curves import Panel, draw_panels, smoothed
from mixer_mlx.analysis.evaluate import Metrics
from mixer_mlx.analysis.interval import with_interval
from mixer_mlx.choices import WeightsName
from mixer_mlx.errors import ConfigError, TrainingError
from mixer_mlx.runtime.atomic import replacing_file
from mixer_mlx.runtime.documents import as_table, parse_json, read_text
from mixer_mlx.runtime.files import open_output

from .loop import EpochDone, Event, StepDone

LOG_FILE = "log.jsonl"
MAX_LOG_BYTES = 2**32
"""Size of a log that is read: that of some 15 million steps."""


@dataclass(frozen=True)
class Best:
    """The best weights (`choices.WeightsName`), their epoch, counted from 0, and their `Metrics`.

    The epoch is -1 for those before training.
    """

    epoch: int
    weights: str
    metrics: Mapping[str, float]
    step: int = 0

    @property
    def where(self) -> str:
        """When the run had these weights, e.g. "EMA weights of epoch 3"."""
        if self.epoch < 0:
            return "the fitted head, before training"
        if self.weights == "halfway":
            return f"halfway between the start and epoch {self.epoch + 1}"
        return f"{'EMA' if self.weights == 'ema' else 'raw'} weights of epoch {self.epoch + 1}"

    @property
    def accuracy(self) -> str:
        """Top-1 with its 95 % interval, e.g. "83.3% (64.1-93.3% at 95%)"."""
        return with_interval(self.metrics["top1"], self.metrics["images"])


class Log:
    """A run's log, in memory and in its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, object]] = []
        self._drawn = 0  # how many lines the plot shows

    @contextmanager
    def opened(self) -> Iterator[Callable[[Event], None]]:
        """A function that logs an event, and flushes it to the file."""
        with io.TextIOWrapper(open_output(self.path, "ab"), encoding="utf-8") as file:

            def note(event: Event) -> None:
                if isinstance(event, StepDone | EpochDone):
                    self.lines.append(_line(event))
                    file.write(json.dumps(self.lines[-1], allow_nan=False) + "\n")
                    file.flush()  # before this step's state is saved

            yield note

    def rewind(self, step: int) -> None:
        """Read the file, and drop what a killed run logged after `step`, which is repeated."""
        self.lines = [line for line in _read(self.path) if int(str(line["step"])) <= step]
        with replacing_file(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self.lines), "utf-8")

    def read(self) -> None:
        """Read the file as it is. Raises TrainingError."""
        self.lines = _read(self.path)

    def lines_of(self, event: str) -> list[dict[str, object]]:
        """The lines of one kind, "step" or "epoch"."""
        return [line for line in self.lines if line["event"] == event]

    def epochs(self) -> int:
        """How many epochs were begun."""
        return max((int(str(line["epoch"])) + 1 for line in self.lines), default=0)

    def cost(self, batch_size: int) -> list[tuple[str, str]]:
        """Steps, the time that they took, without validation, speed and peak memory, in words."""
        steps = self.lines_of("step")
        if not steps:
            return [("steps", "none; only the head was fitted")]
        seconds = sum(batch_size / float(str(line["images_per_second"])) for line in steps)
        peak = max(int(str(line["peak_memory"])) for line in steps)
        return [
            ("steps", f"{len(steps):,} of {batch_size:,} images"),
            ("time", f"{timedelta(seconds=round(seconds))}, without validation"),
            ("images per second", f"{len(steps) * batch_size / seconds:,.1f}"),
            ("peak memory", f"{peak / 2**30:.2f} GiB"),
        ]

    def best(self) -> Best | None:
        """The model in `best/`."""
        for line in reversed(self.lines):
            if line["event"] == "epoch" and line["best"]:
                weights = str(line["best"])
                epoch, step = int(str(line["epoch"])), int(str(line["step"]))
                if weights == "start":
                    epoch, step = -1, 0
                return Best(epoch, weights, line[weights], step)  # type: ignore[arg-type]
        return None

    def draw_grown(self, path: Path) -> None:
        """`draw` if a twentieth of the log is new: all plots of a run read 21 times its lines."""
        if 20 * len(self.lines) >= 21 * self._drawn:
            self.draw(path)

    def draw(self, path: Path) -> None:
        """Plot loss and accuracy by step, to a PNG."""
        self._drawn = len(self.lines)
        steps, epochs = self.lines_of("step"), self.lines_of("epoch")
        losses = {"training": smoothed([_point(line, line["loss"]) for line in steps], 60)}
        accuracy = [_point(line, 100 * float(str(line["accuracy"]))) for line in steps]
        top1 = {"training": smoothed(accuracy, 60)}
        for weights, name in (("raw", "validation"), ("ema", "validation, EMA")):
            known = [line for line in epochs if isinstance(line[weights], dict)]
            losses[name] = [_point(line, line[weights]["loss"]) for line in known]  # type: ignore[index]
            top1[name] = [_point(line, 100 * line[weights]["top1"]) for line in known]  # type: ignore[index]
        image = draw_panels([Panel("loss by step", losses), Panel("top-1, %", top1)])
        with replacing_file(path) as temporary:
            image.save(temporary, "PNG")


def best_of(path: Path) -> Best | None:
    """The best weights of the run that wrote a log, or None. Raises TrainingError."""
    log = Log(path)
    log.read()
    return log.best()


def _read(path: Path) -> list[dict[str, object]]:
    """The lines of a log, without one that a crash cut off."""
    lines = []
    try:
        texts = read_text(path, limit=MAX_LOG_BYTES).splitlines() if path.exists() else []
    except ConfigError as error:
        raise TrainingError(f"{path} can't be used: {error}") from error
    for text in texts:
        try:
            line = as_table(parse_json(text))
        except ConfigError:
            break
        if not _is_line(line):
            break
        lines.append(line)
    return lines


def _is_line(line: Mapping[str, object]) -> bool:
    """Whether `_line` may have made it."""
    if any(type(line.get(key)) is not int for key in ("step", "epoch")):
        return False
    if line.get("event") == "step":
        return all(isinstance(line.get(key), int | float) for key in ("loss", "accuracy"))
    found = {name: line[name] for name in get_args(WeightsName) if line.get(name) is not None}
    known = line.get("event") == "epoch" and line.get("best") in (None, *found)
    return known and all(map(_is_metrics, found.values()))


def _is_metrics(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(key), int | float) for key in ("top1", "top5", "loss", "images")
    )


def _line(event: StepDone | EpochDone) -> dict[str, object]:
    if isinstance(event, EpochDone):
        return {
            "event": "epoch",
            "step": event.step,
            "epoch": event.epoch,
            "raw": _metrics(event.raw),
            "ema": _metrics(event.ema),
            "best": event.best,
            **{
                name: _metrics(getattr(event, name)) for name in ("halfway", "start") if event.start
            },
        }
    values = {
        field.name: getattr(event, field.name)
        for field in dataclasses.fields(event)
        if field.name != "state"
    }
    if not math.isfinite(event.gradient_norm):  # float16 skipped the step; JSON has no inf
        values["gradient_norm"] = None
    return {"event": "step", **values}


def _metrics(metrics: Metrics | None) -> dict[str, object] | None:
    return None if metrics is None else dict(metrics.to_dict())


def _point(line: Mapping[str, object], value: object) -> tuple[float, float]:
    return float(str(line["step"])), float(str(value))
