"""One Parquet file: its labels, and its pictures in any order.

A Parquet file can only be decoded a row group at a time, and these hold up to thousands of
pictures. So each row group is decoded once, when the first of its pictures is wanted, into a
temporary file; from there pictures are read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError, ImageError, MixerError
from mixer_mlx.images.archives import MAX_MEMBER_BYTES, Member
from mixer_mlx.images.pillow import reason

from .columns import Columns, find_columns
from .spool import Spool

MAX_ROWS = 2**24
"""A file may claim so many; some hundred bytes can claim any number."""
_BATCH_ROWS = 64


class ParquetFile:
    """The rows of a file are counted from 0. `names` are those of a ClassLabel, or None.

    Raises ConfigError for a file that is none, or has no columns of pictures and labels.
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

    def picture_bytes(self) -> int:
        """What the column of pictures has uncompressed."""
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

    def members(self, spool: Spool, lock: Lock) -> Iterator[Member]:
        """The pictures, named `FILE row N`. While a row group is decoded, `lock` is held."""
        size = self.path.stat().st_size
        for row in range(len(self)):
            yield Member(f"{self.path} row {row}", partial(self._read, spool, lock, row), size)

    def _read(self, spool: Spool, lock: Lock, row: int) -> bytes:
        """Raises ImageError for the row's own fault, ConfigError for the file's and the disk's."""
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        with _readable(self.path):
            with lock:
                if group not in self._places:
                    self._places[group] = self._decode(group, spool)
            place, size = map(int, self._places[group][row - self._starts[group]])
            if not 0 < size <= MAX_MEMBER_BYTES:
                text = f"The row holds {size:,} bytes, which is no picture; leave it out."
                raise ImageError(text)
            return spool.read(place, size)

    def _decode(self, group: int, spool: Spool) -> NDArray[np.int64]:
        """Lay a row group's pictures in the spool: (rows, 2), place and size of each."""
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
