"""Where the results of `mixer predict` go: stdout or a file, as lines or as Parquet rows."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from mixer_mlx.errors import MixerError

from ..terminal.part_file import Kept, PartFile
from .lines import COLUMNS, CSV_HEADER, Lines, PredictFormat, PredictionRow, rows
from .resume import read_kept

if TYPE_CHECKING:
    from mixer_mlx import Result


class Writer(Protocol):
    """Takes results; those before a `flush` survive the end of the process."""

    def add(self, result: "Result") -> None:
        """Take a result."""

    def flush(self) -> None:
        """Pass on the results so far."""


@dataclass
class LineWriter:
    """Text formats; `header` comes before the first line."""

    lines: Lines
    write: Callable[[str], object]
    flush: Callable[[], None]
    header: str = ""

    def add(self, result: "Result") -> None:
        """Write a result's lines."""
        self.write_header()
        for line in self.lines(result):
            self.write(line)

    def write_header(self) -> None:
        """Once."""
        self.write(self.header)
        self.header = ""


@contextmanager
def to_stdout(lines: Lines, style: PredictFormat) -> Iterator[Writer]:
    """Write to the terminal, or wherever the shell redirects to."""
    header = CSV_HEADER if style == "csv" else ""
    writer = LineWriter(lines, sys.stdout.write, sys.stdout.flush, header)
    yield writer
    writer.write_header()


@contextmanager
def to_file(
    target: PartFile,
    lines: Lines,
    style: PredictFormat,
    settings: Mapping[str, object],
    *,
    k: int,
    batch_size: int,
) -> Iterator[tuple[Writer, Kept]]:
    """Write to a file that is complete when the block succeeds; also what it kept from before.

    Raises MixerError as PartFile does.
    """
    with target.open(settings) as file:
        if style == "parquet":
            parquet = ParquetRows(file)
            try:
                yield parquet, Kept()
            except OSError:
                raise  # nothing more can be written
            except BaseException:
                parquet.close()  # so that what there is can be read
                raise
            parquet.close()
            return
        kept = _kept(file, style, k, batch_size)
        header = CSV_HEADER if style == "csv" and not kept.size else ""
        writer = LineWriter(lines, lambda text: file.write(text.encode()), file.flush, header)
        yield writer, kept
        writer.write_header()


def _kept(file: BinaryIO, style: PredictFormat, k: int, batch_size: int) -> Kept:
    """Read what is there, and cut off what is incomplete."""
    kept = read_kept(file, style, k=k, batch_size=batch_size)
    file.seek(kept.size)
    file.truncate()
    return kept


_GROUP_ROWS = 2**14


def check_pyarrow() -> None:
    """Raises MixerError if pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MixerError(
            "Parquet needs the extra `parquet`: pip install 'mixer-mlx[parquet]'; --format csv "
            "needs no extra."
        ) from error


class ParquetRows:
    """COLUMNS as string, int32, int32, string, float32, string; empty is null.

    Bytes of a name that aren't UTF-8, which Parquet can't hold, become backslash escapes.
    """

    def __init__(self, file: BinaryIO) -> None:
        from pyarrow import float32, int32, schema, string
        from pyarrow.parquet import ParquetWriter

        types = (string(), int32(), int32(), string(), float32(), string())
        self._schema = schema(list(zip(COLUMNS, types, strict=True)))
        self._writer = ParquetWriter(file, self._schema)
        self._rows: list[PredictionRow] = []

    def add(self, result: "Result") -> None:
        """Take an image's rows."""
        self._rows.extend(rows(result))
        if len(self._rows) >= _GROUP_ROWS:
            self._write_group()

    def flush(self) -> None:
        """Do nothing: until the file is closed, none of it can be read."""

    def close(self) -> None:
        """Write the last rows, and the end without which the file can't be read."""
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        from pyarrow import RecordBatch

        values = [dict(zip(COLUMNS, map(_utf8, row), strict=True)) for row in self._rows]
        self._writer.write_batch(RecordBatch.from_pylist(values, self._schema))
        self._rows.clear()


def _utf8(value: object) -> object:
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
