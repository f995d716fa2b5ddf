"""Datasets in Parquet files, as the Hugging Face Hub stores them.

A Parquet file can only be decoded a row group at a time, and these hold up to thousands of
images. So each row group is decoded once, when the first of its images is wanted, into a
temporary file; from there images are read. That file has no name: it is gone with the process,
however that ends. It lies in TMPDIR, else in /var/tmp, which unlike /tmp is a disk everywhere.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError, ImageError, MixerError
from mixer_mlx.images.archives import MAX_MEMBER_BYTES, OpenFile, StoredImage
from mixer_mlx.images.pillow import reason

from .columns import Columns, find_columns
from .dataset import KNOWN, WHOLE, Dataset, by_name

_NUMBERED = re.compile(r"(.+?)-\d{5,}-of-(\d{5,})\b.*")
_BETWEEN_WORDS = re.compile(r"[-._ 0-9]+")


def group_files(names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Paths of Parquet files -> folder of a dataset -> its parts -> their files, sorted.

    `data/train-00000-of-00002.parquet` is in part train of the dataset in `data`;
    `default/train/0000.parquet`, as the Hub's own conversion has it, in that of the dataset in
    `default`, and so is `default/partial-train/0000.parquet`. Raises ConfigError where one of
    several files is missing.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(names):
        folder, part = _place(PurePosixPath(name))
        found.setdefault(folder, {}).setdefault(part, []).append(name)
    for parts in found.values():
        if len(parts) > 1:
            parts.pop(WHOLE, None)
        for part, files in parts.items():
            _check_complete(part, files)
    return found


def _place(path: PurePosixPath) -> tuple[str, str]:
    if numbered := _NUMBERED.fullmatch(path.stem):
        return str(path.parent), numbered[1]
    above = path.parent.name.removeprefix("partial-")
    if above.lower() in KNOWN:
        return str(path.parent.parent), above
    words = _BETWEEN_WORDS.split(path.stem)
    return str(path.parent), next((word for word in words if word.lower() in KNOWN), WHOLE)


def _check_complete(part: str, files: Sequence[str]) -> None:
    numbered = _NUMBERED.fullmatch(PurePosixPath(files[0]).stem)
    if numbered and len(files) < int(numbered[2]):
        raise ConfigError(
            f"Of the {int(numbered[2])} files of part {part} there are {len(files)}, beginning "
            f"with {files[0]}; fetch the others, too."
        )


def find_files(folder: Path, *, deep: bool) -> dict[str, list[Path]]:
    """The parts of the dataset in a folder, and their files; empty where there are none.

    Folders are looked into, and with `deep` those in them. Raises ConfigError for several datasets.
    """
    patterns = ["**/*.parquet"] if deep else ["*.parquet", "*/*.parquet"]
    found_paths = chain.from_iterable(map(folder.glob, patterns))
    paths = (path.relative_to(folder) for path in found_paths)
    visible = (path for path in paths if not any(part.startswith(".") for part in path.parts))
    found = group_files(path.as_posix() for path in visible)
    if len(found) > 1:
        raise ConfigError(
            f"{folder} holds several datasets ({', '.join(sorted(found))}); name the folder of one."
        )
    parts = next(iter(found.values()), {})
    return {part: [folder / name for name in files] for part, files in parts.items()}


def read(paths: Sequence[Path], columns: Columns) -> Dataset:
    """The rows of some files, an image each, named `FILE row N`, counted from 0 in each file.

    Classes are the names of a ClassLabel, in their order; else the labels themselves, sorted.
    Raises ConfigError.
    """
    files = [ParquetFile(path, columns) for path in paths]
    names = files[0].names
    if any(file.names != names for file in files):
        raise ConfigError(f"{paths[0]} and the files beside it differ in the names of the classes.")
    labels = [file.labels() for file in files]
    spool, lock = Spool(sum(file.image_bytes() for file in files)), Lock()
    members = tuple(chain.from_iterable(file.members(spool, lock) for file in files))
    if not members:
        raise ConfigError(f"{paths[0]} holds no rows; there must be an image in each.")
    if names is None:
        return by_name(members, list(map(str, chain.from_iterable(labels))))
    return Dataset(names, members, np.concatenate(labels).astype(np.int32))


class Spool:
    """Takes pieces of bytes, and gives each back by its place. Safe in threads."""

    def __init__(self, expected_bytes: int = 0) -> None:
        """Raises ConfigError where there is no room for so many bytes, or no temporary file."""
        self.folder = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108  # a file without a name
        try:
            free = shutil.disk_usage(self.folder).free
            with tempfile.TemporaryFile(dir=self.folder) as file:
                self._file = OpenFile(os.dup(file.fileno()))
        except OSError as error:
            raise self._error(str(error.strerror)) from error
        if free < expected_bytes:
            raise self._error(f"it takes {_gib(expected_bytes)}, and {_gib(free)} are free")
        self._end = 0
        self._lock = Lock()

    def add(self, data: bytes | memoryview) -> int:
        """Where the bytes begin from now on. Raises ConfigError when the disk is full."""
        with self._lock:
            place = self._end
            try:
                self._file.write(place, data)
            except OSError as error:
                raise self._error(str(error.strerror)) from error
            self._end += len(data)
        return place

    def read(self, place: int, size: int) -> bytes:
        """Raises OSError."""
        return self._file.read(place, size)

    def _error(self, why: str) -> ConfigError:
        return ConfigError(
            f"There is no room for the images in {self.folder} ({why}); set TMPDIR to a folder "
            "that has it."
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


MAX_ROWS = 2**24
"""A file may claim so many; some hundred bytes can claim any number."""
_BATCH_ROWS = 64


class ParquetFile:
    """The rows of a file are counted from 0. `names` are those of a ClassLabel, or None.

    Raises ConfigError for a file that is none, or has no columns of images and labels.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        with _readable(path):
            self._metadata = _open(path).metadata
            schema = self._metadata.schema.to_arrow_schema()
            found = find_columns(schema, columns, str(path))
        self._image, self._label, self.names = found.image, found.label, found.names
        rows = [group.num_rows for group in self._groups()]
        self._starts = np.cumsum([0, *rows])  # row where each group begins, and the end
        self._places: dict[int, NDArray[np.int64]] = {}
        if len(self) > MAX_ROWS or min(rows, default=0) < 0:
            raise ConfigError(f"{path} claims {len(self):,} rows; split it, or use an intact copy.")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _groups(self) -> list[Any]:
        return [self._metadata.row_group(i) for i in range(self._metadata.num_row_groups)]

    def image_bytes(self) -> int:
        """What the column of images has uncompressed."""
        with _readable(self.path):
            found = (group.column(i) for group in self._groups() for i in range(group.num_columns))
            return sum(c.total_uncompressed_size for c in found if c.path_in_schema == self._image)

    def labels(self) -> list[str] | NDArray[np.int32]:
        """The numbers of a ClassLabel, else the labels as text. Raises ConfigError."""
        with _readable(self.path):
            column = _open(self.path, self._metadata).read(columns=[self._label]).column(0)
            if len(column) != len(self):
                raise OSError(f"{len(column):,} labels in {len(self):,} rows")
            if column.null_count:
                raise self._no_label(int(np.argmax(column.is_null().to_numpy())), "none")
            if self.names is None:
                return [str(value) for value in column.to_pylist()]
            numbers = column.to_numpy()
        if (wrong := (numbers < 0) | (numbers >= len(self.names))).any():
            row = int(np.argmax(wrong))
            raise self._no_label(row, str(numbers[row]))
        return np.asarray(numbers, np.int32)

    def _no_label(self, row: int, what: str) -> ConfigError:
        return ConfigError(
            f"{self.path} row {row} has the label {what}, which means no class; choose another "
            "part of the dataset, or leave such rows out."
        )

    def members(self, spool: Spool, lock: Lock) -> Iterator[StoredImage]:
        """The images, named `FILE row N`. While a row group is decoded, `lock` is held."""
        size = self.path.stat().st_size
        for row in range(len(self)):
            yield StoredImage(f"{self.path} row {row}", partial(self._read, spool, lock, row), size)

    def _read(self, spool: Spool, lock: Lock, row: int) -> bytes:
        """Raises ImageError for the row's own fault, ConfigError for the file's and the disk's."""
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        with _readable(self.path):
            with lock:
                if group not in self._places:
                    self._places[group] = self._decode(group, spool)
            place, size = map(int, self._places[group][row - self._starts[group]])
            if not 0 < size <= MAX_MEMBER_BYTES:
                text = f"The row holds {size:,} bytes, which is no image; leave it out."
                raise ImageError(text)
            return spool.read(place, size)

    def _decode(self, group: int, spool: Spool) -> NDArray[np.int64]:
        """Lay a row group's images in the spool: (rows, 2), place and size of each."""
        batches = _open(self.path, self._metadata).iter_batches(
            _BATCH_ROWS, row_groups=[group], columns=[self._image], use_threads=False
        )
        places = []
        for batch in batches:
            column = batch.column(0)
            values = (
                column.flatten()[0] if "." in self._image and column.type.num_fields else column
            )
            for value in values:
                data = memoryview(value.as_buffer() if value.is_valid else b"")
                places.append((spool.add(data), len(data)))
        if len(places) != self._starts[group + 1] - self._starts[group]:
            raise OSError("other rows than it says")
        return np.array(places, np.int64)


def _open(path: Path, metadata: Any = None) -> Any:
    """A reader of its own for each use: pyarrow's is not safe in threads."""
    from pyarrow.parquet import ParquetFile as Reader

    return Reader(path, metadata=metadata)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What pyarrow raises, or that it is missing, as ConfigError."""
    try:
        from pyarrow import ArrowException
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow, the extra `parquet`: pip install 'mixer-mlx[parquet]'."
        ) from error
    try:
        yield
    except MixerError:
        raise
    except (OSError, ValueError, ArrowException) as error:
        text = f"{path} can't be read as Parquet ({reason(error)}); use an intact copy."
        raise ConfigError(text) from error
