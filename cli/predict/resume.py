"""Which images an interrupted `mixer predict` has written, read off its lines."""

import csv
from collections.abc import Iterator
from typing import BinaryIO

from mixer_mlx.errors import ConfigError
from mixer_mlx.runtime.documents import as_table, parse_json

from ..terminal.part_file import Kept, Written, whole_batches
from .lines import CSV_HEADER, PredictFormat


def read_kept(file: BinaryIO, style: PredictFormat, *, k: int, batch_size: int) -> Kept:
    """The complete batches in `file`, read from its start; an image has at most `k` predictions."""
    return whole_batches(
        _json_images(file) if style == "json" else _csv_images(file, k), batch_size
    )


def _json_images(file: BinaryIO) -> Iterator[Written]:
    end = 0
    for line in file:
        end += len(line)
        try:
            values = as_table(parse_json(line))
            name, failed = str(values["image"]), "error" in values
        except (ConfigError, KeyError):
            return
        if not line.endswith(b"\n"):
            return
        yield end, name, failed


def _csv_images(file: BinaryIO, k: int) -> Iterator[Written]:
    """An image ends with its k-th row, with a row without rank, or before the next image."""
    end = len(header := file.readline())
    if header != CSV_HEADER.encode():
        return
    last: Written | None = None
    for line in file:
        cells = next(csv.reader([line.decode("utf-8", "replace")]))
        if not line.endswith(b"\n") or len(cells) != 6:
            return
        name, rank, *_, error = cells
        if last and rank in ("", "1"):
            yield last
        end += len(line)
        last = (end, name, bool(error))
        if rank in ("", str(k)):
            yield last
            last = None
