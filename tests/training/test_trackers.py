"""What trackers get; TensorBoard's files and those of Weights & Biases are read by their format."""

import errno
import io
import json
import os
import sqlite3
import struct
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from training.synthetic import PREPROCESS, Synthetic, tiny_model

from mixer_mlx.analysis.evaluate import Metrics
from mixer_mlx.errors import TrainingError
from mixer_mlx.training import trackers
from mixer_mlx.training.loop import EpochDone, Event, StepDone, fit
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.run import Run
from mixer_mlx.training.state import State
from mixer_mlx.training.trackers import ID_FILE, metrics_of, opened

RECIPE = Recipe(epochs=2, ema_decay=0.9, save_every=3)
TENSORBOARD = "NOT RUN: needs the extra tensorboard"


def events(folder: Path, resume: State | None = None) -> Iterator[Event]:
    """Ten steps in two epochs; the state is saved after 3, 5, 6, 9 and 10."""
    return fit(
        tiny_model(),
        Synthetic(),
        lambda model: Metrics(0.5, 0.75, 1.25, 8, 100.0),
        RECIPE,
        preprocess=PREPROCESS,
        folder=folder / "state",
        resume=resume,
    )


def report_run(names: list[str], folder: Path, steps: int = 99, **others: object) -> list[Event]:
    """Report a run, or its first steps, after which it breaks."""
    resume = State.load(folder / "state", tiny_model()) if "done" in others else None
    seen = []
    try:
        with opened(names, folder, {"lr": 1e-3, "betas": [0.9, 0.999]}, **others) as report:  # type: ignore[arg-type]
            for event in events(folder, resume):
                report(event)
                seen.append(event)
                if isinstance(event, StepDone) and event.step == steps:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    return seen


def crc32c(data: bytes) -> int:
    """The Castagnoli polynomial, reversed, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def tfrecords(path: Path) -> Iterator[bytes]:
    """Length, its checksum, bytes, their checksum; little-endian."""
    data = path.read_bytes()
    while data:
        length, check = struct.unpack("<QI", data[:12])
        record = data[12 : 12 + length]
        assert check == masked(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length]) == (masked(record),)
        yield record
        data = data[16 + length :]


def tensorboard_shows(folder: Path) -> dict[tuple[str, int], float]:
    """(tag, step) -> value; a restart at a step voids what was there from that step on."""
    from tensorboardX.proto.event_pb2 import Event as Record
    from tensorboardX.proto.event_pb2 import SessionLog

    shown: dict[tuple[str, int], float] = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        assert "tfevents" in path.name
        records = [Record.FromString(record) for record in tfrecords(path)]
        assert records[0].file_version == "brain.Event:2"
        for record in records:
            if record.session_log.status == SessionLog.START:
                shown = {key: value for key, value in shown.items() if key[1] < record.step}
            for value in record.summary.value:
                assert (value.tag, record.step) not in shown
                shown[value.tag, record.step] = value.simple_value
    return shown


def expected(seen: list[Event]) -> dict[tuple[str, int], float]:
    out: dict[tuple[str, int], float] = {}
    for event in seen:
        if isinstance(event, StepDone):
            for name in ("loss", "accuracy", "lr", "gradient_norm", "images_per_second"):
                out[f"train/{name}", event.step] = float(np.float32(getattr(event, name)))
        if isinstance(event, EpochDone):
            for group in ("val", "val_ema"):
                metrics = {"top1": 0.5, "top5": 0.75, "loss": 1.25}
                out |= {(f"{group}/{name}", event.step): x for name, x in metrics.items()}
    return out


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason=TENSORBOARD)
    seen = report_run(["tensorboard"], tmp_path)
    shown = tensorboard_shows(tmp_path)
    assert shown == expected(seen)
    assert len(shown) == 10 * 5 + 2 * 2 * 3


def test_tensorboard_goes_on_where_the_saved_state_was(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason=TENSORBOARD)
    first = report_run(["tensorboard"], tmp_path, steps=8)
    assert ("train/loss", 8) in tensorboard_shows(tmp_path)  # though it was not the end
    kept = [event for event in first if isinstance(event, StepDone | EpochDone) and event.step <= 6]
    second = report_run(["tensorboard"], tmp_path, done=6)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2  # in the same second, perhaps
    shown = tensorboard_shows(tmp_path)
    assert shown == expected([*kept, *second])
    assert [step for tag, step in shown if tag == "train/loss"] == list(range(1, 11))


class SmallDisk(io.BytesIO):
    """A file on a disk with room for a few records."""

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        if self.tell() + len(data) > 400:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboardX", reason=TENSORBOARD)
    run = Run(tmp_path, None)  # type: ignore[arg-type]
    monkeypatch.setattr(trackers, "open_output", lambda *_, **__: SmallDisk())
    with (
        pytest.raises(TrainingError, match=r"No space left.*resume the run"),
        opened(["tensorboard"], tmp_path, {}) as report,
    ):
        list(run.follow(events(tmp_path), tiny_model(), report))


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    step = next(events(tmp_path))
    assert isinstance(step, StepDone)
    overflow = StepDone(step.state, 1, 0, 0.5, 0.25, 1e-3, float("inf"), 10.0, 0, True)
    assert metrics_of(overflow) == {
        "train/loss": 0.5,
        "train/accuracy": 0.25,
        "train/lr": 1e-3,
        "train/images_per_second": 10.0,
    }


class Library(types.ModuleType):
    """What wandb and trackio have in common, keeping what it is told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.begun: list[dict[str, object]] = []
        self.logged: list[tuple[dict[str, float], int]] = []
        self.ended: list[dict[str, int]] = []

    def init(self, **arguments: object) -> "Library":
        print("welcome")
        self.begun.append(arguments)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((values, step))

    def finish(self, **arguments: int) -> None:
        print("good-bye")
        self.ended.append(arguments)

    class Settings:
        def __init__(self, **_: object) -> None: ...


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_run_that_goes_on_is_the_same_run_elsewhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = Library(name)
    monkeypatch.setitem(sys.modules, name, library)
    folder = tmp_path / "my-run"
    folder.mkdir()
    report_run([name], folder, steps=7)
    report_run([name], folder, done=6, quiet=True)
    one, other = library.begun
    key = {"wandb": "id", "trackio": "name"}[name]
    assert one[key] == other[key]
    assert (folder / ID_FILE).read_text().strip() in str(one[key])
    assert str(one["name"]).startswith("my-run")
    assert one["resume"] == other["resume"] == "allow"
    assert one["config"] == {"lr": 1e-3, "betas": [0.9, 0.999]}
    assert [step for values, step in library.logged if "train/loss" in values] == [
        *range(1, 8),
        *range(7, 11),
    ]
    assert [step for values, step in library.logged if "val/top1" in values] == [5, 10]
    if name == "wandb":
        assert library.ended == [{"exit_code": 1}, {"exit_code": 0}]
    else:
        out, err = capsys.readouterr()
        assert out == ""
        assert err.split() == ["welcome", "good-bye"]  # of the run that was not quiet


def test_a_library_that_can_t_start_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library("wandb")
    monkeypatch.setattr(library, "init", lambda **_: 1 / 0)
    monkeypatch.setitem(sys.modules, "wandb", library)
    with pytest.raises(TrainingError, match=r"wandb can't start: division by zero"):
        report_run(["wandb"], tmp_path)


def in_a_process(folder: Path, name: str, **environment: str) -> None:
    """Report a run by the real library, whose own processes and hooks end with this one."""
    code = (
        "import sys, mixer_mlx; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from training.test_trackers import report_run\n"
        "report_run([sys.argv[2]], Path(sys.argv[3]))"
    )
    kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, Path(__file__).parents[1], name, folder],
        env={**kept, "HOME": str(folder / "home"), **environment},
        check=True,
        timeout=600,
    )


def wandb_payloads(path: Path) -> Iterator[bytes]:
    """LevelDB's log: blocks of 32 KiB of records of checksum, length, kind (1: whole), bytes."""
    data = path.read_bytes()
    place = 7
    while place + 7 <= len(data):
        if place % 32768 > 32768 - 7:
            place += -place % 32768
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        if kind == 1:
            yield data[place + 7 : place + 7 + length]
        place += 7 + length


def test_wandb_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="NOT RUN: needs the extra wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    in_a_process(tmp_path, "wandb", WANDB_MODE="offline", WANDB_ERROR_REPORTING="false")
    (path,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert (tmp_path / ID_FILE).read_text().strip() in path.name
    losses = {}
    for payload in wandb_payloads(path):
        record = Record.FromString(payload)
        if record.HasField("history"):
            items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            losses[int(items["_step"])] = json.loads(items["train/loss"])
            last = items
    assert losses == {
        event.step: event.loss
        for event in events(tmp_path / "again")
        if isinstance(event, StepDone)
    }
    assert json.loads(last["val_ema/top1"]) == 0.5


def test_trackio(tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="NOT RUN: needs trackio (pip install trackio)")
    in_a_process(tmp_path, "trackio", TRACKIO_DIR=str(tmp_path / "trackio"), HF_HUB_OFFLINE="1")
    with sqlite3.connect(tmp_path / "trackio" / "mixer-mlx.db") as database:
        rows = database.execute("SELECT step, metrics FROM metrics ORDER BY id").fetchall()
    losses = {step: json.loads(text)["train/loss"] for step, text in rows if b"train/loss" in text}
    assert losses == {
        event.step: event.loss
        for event in events(tmp_path / "again")
        if isinstance(event, StepDone)
    }
