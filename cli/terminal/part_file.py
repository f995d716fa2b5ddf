"""Output that survives an interruption: FILE.part, what it holds, and which images are left.

Output grows in FILE.part and is called FILE when it is complete. What an interrupted run has
written stays there, and its options in FILE.part.json, so that `--resume` gives exactly the file of
an undisturbed run.

Images are kept by whole batches of the model: the last bits of a probability depend on how many
images are computed together, and the end result is to be that of an undisturbed run.
"""

import contextlib
import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

from mixer_mlx.errors import ConfigError, MixerError
from mixer_mlx.runtime.atomic import replacing_file, sync
from mixer_mlx.runtime.documents import read_json
from mixer_mlx.runtime.files import beside, lock, open_output

from . import files, output

Named = TypeVar("Named")
Written = tuple[int, str, bool]
"""Where an image's lines end, its name as it is written, whether it failed."""


@dataclass
class Kept:
    """The valid part of a file: its size, and how often each image is in it."""

    size: int = 0
    names: Counter[str] = field(default_factory=Counter)
    failed: int = 0


def whole_batches(images: Iterable[Written], batch_size: int) -> Kept:
    """The complete batches of what was written."""
    kept = Kept()
    batch: list[Written] = []
    for written in images:
        batch.append(written)
        if len(batch) == batch_size:
            kept.size = written[0]
            kept.names.update(name for _, name, _ in batch)
            kept.failed += sum(failed for _, _, failed in batch)
            batch.clear()
    return kept


def without(images: Iterable[Named], kept: Kept, style: str) -> Iterator[Named]:
    """The images that `kept` lacks; an image given twice must be there twice."""
    names = Counter(kept.names)
    for image in images:
        name = str(image)
        if style == "csv":
            name = next(csv.reader([output.csv_line([name])]))[0]
        if names[name] > 0:
            names[name] -= 1
        else:
            yield image


@dataclass(frozen=True)
class PartFile:
    """`path` is FILE.

    `resumable`: an interrupted run can be resumed. `needs_end`: a file without its end is of no
    use, as Parquet's.
    """

    path: Path
    resumable: bool
    needs_end: bool = False
    force: bool = False
    resume: bool = False

    @property
    def part(self) -> Path:
        """Where the output grows."""
        return beside(self.path, ".part")

    @property
    def settings_path(self) -> Path:
        """The options of the run."""
        return beside(self.path, ".part.json")

    def check(self) -> None:
        """Raises MixerError for a FILE or a FILE.part that would be lost, or can't be written."""
        if self.path.exists() and not self.path.is_file():
            raise MixerError(f"{self.path} isn't a regular file; choose another name.")
        files.check(self.path, force=self.force)
        if self.part.exists() and not (self.force or self.resume):
            resume = "resume it with --resume, or " if self.resumable else ""
            raise MixerError(
                f"{self.part} is the output of an interrupted or running command; {resume}start "
                "over with --force."
            )

    @contextmanager
    def open(
        self,
        settings: Mapping[str, object],
        complete: Callable[[BinaryIO, Path], None] | None = None,
    ) -> Iterator[BinaryIO]:
        """FILE.part, open for reading and writing; becomes FILE when the block succeeds.

        Or `complete` writes FILE, to a temporary path, from what is in FILE.part. It holds what
        there is to resume from; the position is 0. Raises MixerError if it belongs to a run with
        other options, or to one that is still running, or can't be written.
        """
        try:
            with self._locked() as file:
                if file.seek(0, os.SEEK_END) and self.resume:
                    self._compare(settings)
                else:
                    file.truncate(0)
                    self._note(settings)
                file.seek(0)
                try:
                    yield file
                    file.flush()
                    if complete:
                        with replacing_file(self.path) as temporary:
                            complete(file, temporary)
                except BaseException as error:
                    with contextlib.suppress(OSError):
                        file.flush()
                    self._keep(error)
                    raise
                if complete:
                    self.part.unlink()
                else:
                    sync(self.part)
                    self.part.replace(self.path)
                self.settings_path.unlink(missing_ok=True)
                sync(self.path.parent)
        except OSError as error:
            raise self._unwritable(error) from error

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        file = open_output(self.part, "r+b")
        try:
            if not lock(file.fileno()):
                raise MixerError(f"Another command is writing {self.part}; wait for it.")
            yield file
        finally:
            with contextlib.suppress(OSError):  # on a full disk, closing fails too
                file.close()

    def _note(self, settings: Mapping[str, object]) -> None:
        with replacing_file(self.settings_path) as temporary:
            temporary.write_text(json.dumps(settings) + "\n")

    def _compare(self, settings: Mapping[str, object]) -> None:
        try:
            begun = read_json(self.settings_path)
        except ConfigError:
            raise MixerError(
                f"{self.settings_path} is missing or broken, so {self.part} can't be resumed; "
                "start over with --force."
            ) from None
        for key in {**settings, **begun}:
            if begun.get(key) != settings.get(key):
                raise MixerError(
                    f"{self.part} was begun with {key} {begun.get(key)}, not {settings.get(key)}; "
                    "use the same options, or start over with --force."
                )

    def _keep(self, error: BaseException) -> None:
        """Add to the error what stays on disk; a useless part is removed."""
        if not _size(self.part) or (self.needs_end and isinstance(error, OSError)):
            self._remove()
        elif not isinstance(error, OSError):
            error.add_note(self._advice())

    def _unwritable(self, error: OSError) -> MixerError:
        advice = f" {self._advice()}" if self.part.exists() else ""
        return MixerError(f"{self.path} can't be written: {error.strerror}.{advice}")

    def _advice(self) -> str:
        stays = f"Finished results are in {self.part}"
        if self.resumable:
            return f"{stays}; run the same command with --resume to continue."
        return f"{stays}; --force starts over."

    def _remove(self) -> None:
        self.part.unlink(missing_ok=True)
        self.settings_path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
