"""Datasets in Parquet files, as the Hugging Face Hub stores them.

Parquet is decoded a row group at a time, and a row group can hold thousands of images. So each is
decoded once, when one of its images is first needed, into an unnamed temporary file that images
are then read from and that disappears with the process, however that ends. It is in TMPDIR, else
in /var/tmp, which unlike /tmp is on a disk everywhere.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError, ImageError, MixerError
from mixer_mlx.images.pillow import reason
from mixer_mlx.images.stored import MAX_MEMBER_BYTES, OpenFile, StoredImage

from .columns import Columns, find_columns
from .dataset import KNOWN, UNSPLIT, Dataset, by_name

_NUMBERED = re.compile(r"(.+?)-\d{5,}-of-(\d{5,})\b.*")
_BETWEEN_WORDS = re.compile(r"[-._ 0-9]+")


def group_files(names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Paths of Parquet files -> folder of a dataset -> its splits -> their files, sorted.

    `data/train-00000-of-00002.parquet` is in split train of the dataset in `data`;
    `default/train/0000.parquet`, as the Hub converts datasets, in split train of the dataset in
    `default`, and so is `default/partial-train/0000.parquet`. Raises ConfigError if a numbered file
    is missing.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(names):
        folder, split = _place(PurePosixPath(name))
        found.setdefault(folder, {}).setdefault(split, []).append(name)
    for splits in found.values():
        if len(splits) > 1:
            splits.pop(UNSPLIT, None)
        for split, files in splits.items():
            _check_complete(split, files)
    return found


def _place(path: PurePosixPath) -> tuple[str, str]:
    """The dataset's folder and the split that a file belongs to."""
    if numbered := _NUMBERED.fullmatch(path.stem):
        return str(path.parent), numbered[1]
    above = path.parent.name.removeprefix("partial-")
    if above.lower() in KNOWN:
        return str(path.parent.parent), above
    words = _BETWEEN_WORDS.split(path.stem)
    return str(path.parent), next((word for word in words if word.lower() in KNOWN), UNSPLIT)


def _check_complete(split: str, files: Sequence[str]) -> None:
    numbered = _NUMBERED.fullmatch(PurePosixPath(files[0]).stem)
    if numbered and len(files) < int(numbered[2]):
        raise ConfigError(
            f"Expected {int(numbered[2])} files for split {split}, found {len(files)}, beginning "
            f"with {files[0]}; add the missing ones."
        )


def find_files(folder: Path, *, deep: bool) -> dict[str, list[Path]]:
    """The splits of the dataset in a folder, and their files; empty without any.

    Searches the folder and its subfolders, with `deep` at any depth. Raises ConfigError for several
    datasets.
    """
    patterns = ["**/*.parquet"] if deep else ["*.parquet", "*/*.parquet"]
    paths = (path.relative_to(folder) for path in chain.from_iterable(map(folder.glob, patterns)))
    visible = (path for path in paths if not any(name.startswith(".") for name in path.parts))
    found = group_files(path.as_posix() for path in visible)
    if len(found) > 1:
        raise ConfigError(
            f"{folder} holds several datasets ({', '.join(sorted(found))}); choose one of these "
            "folders."
        )
    splits = next(iter(found.values()), {})
    return {split: [folder / name for name in files] for split, files in splits.items()}


def read(paths: Sequence[Path], columns: Columns) -> Dataset:
    """The rows of some files, one image each, named `FILE row N`, from 0 in each file.

    Classes are the names of a ClassLabel, in their order, else the labels themselves, sorted.
    Raises ConfigError.
    """
    files = [ParquetFile(path, columns) for path in paths]
    names = files[0].names
    if any(file.names != names for file in files):
        raise ConfigError(f"{paths[0]} and the files beside it have different class names.")
    labels = [file.labels() for file in files]
    spool, lock = Spool(sum(file.image_bytes() for file in files)), Lock()
    members = tuple(chain.from_iterable(file.members(spool, lock) for file in files))
    if not members:
        raise ConfigError(f"{paths[0]} has no rows; expected one image per row.")
    if names is None:
        return by_name(members, list(map(str, chain.from_iterable(labels))))
    return Dataset(names, members, np.concatenate(labels).astype(np.int32))


class Spool:
    """A temporary file that stores pieces of bytes by their place. Safe in threads."""

    def __init__(self, expected_bytes: int = 0) -> None:
        """Raises ConfigError without room for `expected_bytes`, or without a temporary file."""
        self.folder = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108  # a file without a name
        try:
            free = shutil.disk_usage(self.folder).free
            with tempfile.TemporaryFile(dir=self.folder) as file:
                self._file = OpenFile(os.dup(file.fileno()))
        except OSError as error:
            raise self._error(str(error.strerror)) from error
        if free < expected_bytes:
            raise self._error(f"{_gib(expected_bytes)} needed, {_gib(free)} free")
        self._end = 0
        self._lock = Lock()

    def add(self, data: bytes | memoryview) -> int:
        """Store the bytes and return their place. Raises ConfigError if the disk is full."""
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
            f"Not enough room for the images in {self.folder} ({why}); set TMPDIR to a folder with "
            "more."
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


MAX_ROWS = 2**24
MIN_ROWS = 2**16
"""No more rows are believed than MAX_ROWS, and above MIN_ROWS no more than the file has bytes: a
few hundred bytes can claim any number."""
_BATCH_ROWS = 64


class ParquetFile:
    """A Parquet file's rows, counted from 0. `names` are the ClassLabel's, or None.

    Raises ConfigError for a file that isn't Parquet or lacks columns of images and labels.
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
        believed = min(MAX_ROWS, max(MIN_ROWS, path.stat().st_size))
        if len(self) > believed or min(rows, default=0) < 0:
            raise ConfigError(
                f"{path} claims {len(self):,} rows; split the file, or use an intact copy."
            )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _groups(self) -> list[Any]:
        return [self._metadata.row_group(i) for i in range(self._metadata.num_row_groups)]

    def image_bytes(self) -> int:
        """The uncompressed size of the image column."""
        with _readable(self.path):
            found = (group.column(i) for group in self._groups() for i in range(group.num_columns))
            return sum(c.total_uncompressed_size for c in found if c.path_in_schema == self._image)

    def labels(self) -> list[str] | NDArray[np.int32]:
        """A ClassLabel's numbers, else the labels as text. Raises ConfigError."""
        with _readable(self.path):
            column = (
                _open(self.path, self._metadata, self._label).read(columns=[self._label]).column(0)
            )
            if len(column) != len(self):
                raise OSError(f"{len(column):,} labels in {len(self):,} rows")
            if column.null_count:
                raise self._no_label(int(np.argmax(column.is_null().to_numpy())), "none")
            if self.names is None:
                return _texts(column)
            numbers = column.to_numpy()
        if (wrong := (numbers < 0) | (numbers >= len(self.names))).any():
            row = int(np.argmax(wrong))
            raise self._no_label(row, str(numbers[row]))
        return np.asarray(numbers, np.int32)

    def _no_label(self, row: int, what: str) -> ConfigError:
        return ConfigError(
            f"{self.path} row {row} has the label {what}, which isn't a class; choose another "
            "split, or remove such rows."
        )

    def members(self, spool: Spool, lock: Lock) -> Iterator[StoredImage]:
        """The images, named `FILE row N`. `lock` is held while a row group is decoded."""
        size = self.path.stat().st_size
        for row in range(len(self)):
            yield StoredImage(f"{self.path} row {row}", partial(self._read, spool, lock, row), size)

    def _read(self, spool: Spool, lock: Lock, row: int) -> bytes:
        """Raises ImageError for a bad row, ConfigError for a bad file or a full disk."""
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        with _readable(self.path):
            with lock:
                if group not in self._places:
                    self._places[group] = self._decode(group, spool)
            place, size = map(int, self._places[group][row - self._starts[group]])
            if not 0 < size <= MAX_MEMBER_BYTES:
                raise ImageError(f"Expected an image, not {size:,} bytes; remove the row.")
            return spool.read(place, size)

    def _decode(self, group: int, spool: Spool) -> NDArray[np.int64]:
        """Store a row group's images in the spool: place and size of each, (rows, 2).

        Equal ones, which a dictionary of the file may hold once for any number of rows, are stored
        once.
        """
        batches = _open(self.path, self._metadata, self._image).iter_batches(
            _BATCH_ROWS, row_groups=[group], columns=[self._image], use_threads=False
        )
        places: list[tuple[int, int]] = []
        stored: dict[bytes, tuple[int, int]] = {b"": (0, 0)}

        def place(data: memoryview) -> tuple[int, int]:
            key = blake2b(data, digest_size=16).digest() if data else b""
            if key not in stored:
                fits = len(data) <= MAX_MEMBER_BYTES  # else reading the row raises the reason
                stored[key] = (spool.add(data) if fits else 0, len(data))
            return stored[key]

        for batch in batches:
            column = batch.column(0)
            values = column.flatten()[0] if "." in self._image and _is_struct(column) else column
            rows = values.indices.to_pylist()
            found = {
                i: place(memoryview(values.dictionary[i].as_buffer())) for i in {*rows} - {None}
            }
            places += [(0, 0) if row is None else found[row] for row in rows]
        if len(places) != self._starts[group + 1] - self._starts[group]:
            raise OSError("a row group's length differs from the metadata")
        return np.array(places, np.int64)


def _texts(column: Any) -> list[str]:
    """Labels as text; equal ones are one object, since the file may hold a long one once."""
    from pyarrow import types

    if not types.is_dictionary(column.type):
        return [str(value) for value in column.to_pylist()]
    texts: list[str] = []
    for chunk in column.chunks:
        names = [str(value) for value in chunk.dictionary.to_pylist()]
        texts += [names[index] for index in chunk.indices.to_pylist()]
    return texts


def _is_struct(column: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(column.type))


def _open(path: Path, metadata: Any = None, column: str | None = None) -> Any:
    """A new reader for each use: pyarrow's isn't safe in threads.

    Texts and bytes of `column` come as dictionaries, as the file may store them: written out for
    each row, a few kB could become gigabytes.
    """
    from pyarrow.parquet import ParquetFile as Reader

    return Reader(path, metadata=metadata, read_dictionary=[column] if column else None)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise a ConfigError for pyarrow's errors, or if it is missing."""
    try:
        from pyarrow import ArrowException
    except ImportError as error:
        raise ConfigError(
            "Parquet files need pyarrow; install it with pip install 'mixer-mlx[parquet]'."
        ) from error
    try:
        yield
    except MixerError:
        raise
    except (OSError, ValueError, ArrowException) as error:
        raise ConfigError(
            f"{path} can't be read as Parquet ({reason(error)}); use an intact copy."
        ) from error
