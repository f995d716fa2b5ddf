"""`mixer fine-tune` as a process of its own, followed by the log that it writes."""

import json
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from mixer_mlx.checkpoint import RUN_FILE
from mixer_mlx.errors import ConfigError, TrainingError
from mixer_mlx.runtime.documents import as_table, read_json
from mixer_mlx.training.pages import REPORT_FILE
from mixer_mlx.training.run_log import LOG_FILE

from .outputs import Outputs, last_sentence, mixer

_STOP_SECONDS = 20


class FineTune:
    """Runs of one folder of images, at most one at a time; they are called run-1, run-2, ..."""

    def __init__(self, data: Path, model: str, outputs: Outputs) -> None:
        self._data, self._model, self._outputs = data, model, outputs
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the server
        self._stopping = False
        self._folder: Path | None = None

    @property
    def folder(self) -> Path | None:
        """The run of this session, or else the newest."""
        return self._folder or self._outputs.newest("run")

    @property
    def running(self) -> bool:
        """Whether it trains."""
        return self._process is not None and self._process.poll() is None

    def start(self, epochs: int | None = None, *, resume: bool = False) -> None:
        """Begin a run, or continue the newest. Raises TrainingError if that can't be.

        `epochs` replaces the number of steps of `fine-tune`'s recipe.
        """
        if self.running:
            raise TrainingError("A run is training already; stop it first.")
        folder = self.folder if resume else self._outputs.following("run")
        if folder is None:
            raise TrainingError("There is no run to resume; start one.")
        command = mixer("fine-tune", str(self._data), "-m", self._model, "-o", str(folder))
        if resume:
            command += ["--resume"]
            epochs = _epochs(folder)
        if epochs is not None:
            command += ["--epochs", str(epochs)]
        self._errors.truncate(0)
        self._errors.seek(0)
        self._stopping, self._folder = False, folder
        # In a session of its own, so that Ctrl-C in the terminal comes from us alone: a second
        # signal would end it without saving.
        self._process = subprocess.Popen(  # noqa: S603  # our own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )

    def stop(self) -> None:
        """Have the run save its state and end."""
        if self._process is not None and self.running and not self._stopping:
            self._stopping = True
            self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Stop, and wait until the state is saved."""
        self.stop()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
        self._errors.close()

    def state(self) -> dict[str, Any] | None:
        """What the page shows of the run."""
        folder = self.folder
        if folder is None:
            return None
        return {
            "name": folder.name,
            "running": self.running,
            "stopping": self.running and self._stopping,
            "sentence": "" if self.running or self._process is None else self._last_words(),
            "finished": (folder / REPORT_FILE).is_file(),
        }

    def log(self) -> list[dict[str, Any]]:
        """Its steps and epochs so far."""
        found: list[dict[str, Any]] = []
        if self.folder is None:
            return found
        with suppress(OSError, ValueError):  # no line yet, or one that is being written
            for line in (self.folder / LOG_FILE).read_text("utf-8").splitlines():
                found.append(json.loads(line))
        return found

    def report(self) -> bytes:
        """Its report. Raises TrainingError."""
        try:
            return (self.folder or self._data).joinpath(REPORT_FILE).read_bytes()
        except OSError as error:
            raise TrainingError("There is no report yet.") from error

    def _last_words(self) -> str:
        self._errors.seek(0)
        return last_sentence(self._errors.read())


def _epochs(folder: Path) -> int | None:
    """With which `--epochs` a run began. Raises TrainingError."""
    try:
        recipe = as_table(read_json(folder / RUN_FILE).get("recipe"))
    except ConfigError as error:
        raise TrainingError(f"{folder} can't be resumed: {error}") from error
    found = recipe.get("epochs")
    return found if isinstance(found, int) else None
