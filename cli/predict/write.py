"""Where the results of `mixer predict` are written: stdout, or a file that can be resumed."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from .lines import CSV_HEADER, Lines, PredictFormat
from .parquet import ParquetRows
from .part_file import PartFile
from .resume import Kept, read_kept

if TYPE_CHECKING:
    from mixer_mlx import Result


class Writer(Protocol):
    """Takes results; what `flush` has seen survives the end of the process."""

    def add(self, result: "Result") -> None:
        """Take a result."""

    def flush(self) -> None:
        """Hand on what was taken."""


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
    """The terminal, or whatever the shell put in its place."""
    header = CSV_HEADER if style is PredictFormat.CSV else ""
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
    """A file that is complete when the block ends well, and what it has of an earlier run.

    Raises MixerError as PartFile does.
    """
    with target.open(settings) as file:
        if style is PredictFormat.PARQUET:
            with ParquetRows(file) as rows:
                yield rows, Kept()
            return
        kept = _kept(file, style, k, batch_size)
        header = CSV_HEADER if style is PredictFormat.CSV and not kept.size else ""
        writer = LineWriter(lines, lambda text: file.write(text.encode()), file.flush, header)
        yield writer, kept
        writer.write_header()


def _kept(file: BinaryIO, style: PredictFormat, k: int, batch_size: int) -> Kept:
    """Reads what is there, and cuts off what is not whole."""
    kept = read_kept(file, style, k=k, batch_size=batch_size)
    file.seek(kept.size)
    file.truncate()
    return kept
