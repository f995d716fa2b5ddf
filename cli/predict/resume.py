"""What a broken `mixer predict` has written, and which pictures are left to do.

Pictures are kept by whole batches of the model: the last bits of a probability depend on how many
pictures are computed together, and the end result is to be that of an undisturbed run.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, TypeVar

from ..terminal import output
from .lines import CSV_HEADER, PredictFormat

Picture = TypeVar("Picture")
Written = tuple[int, str, bool]
"""Where a picture's lines end, its name as it is written, whether it failed."""


@dataclass
class Kept:
    """The part of a file that stays: its size, and how often each picture is in it."""

    size: int = 0
    names: Counter[str] = field(default_factory=Counter)
    failed: int = 0

    @property
    def count(self) -> int:
        """How many pictures it has."""
        return self.names.total()


def read_kept(file: BinaryIO, style: PredictFormat, *, k: int, batch_size: int) -> Kept:
    """What is whole in `file`, read from its start; `k` is the most predictions of a picture."""
    kept = Kept()
    batch: list[Written] = []
    for written in _json_pictures(file) if style is PredictFormat.JSON else _csv_pictures(file, k):
        batch.append(written)
        if len(batch) == batch_size:
            kept.size = written[0]
            kept.names.update(name for _, name, _ in batch)
            kept.failed += sum(failed for _, _, failed in batch)
            batch.clear()
    return kept


def without(pictures: Iterable[Picture], kept: Kept, style: PredictFormat) -> Iterator[Picture]:
    """The pictures that `kept` lacks; one that is named twice must be there twice."""
    names = Counter(kept.names)
    for picture in pictures:
        name = str(picture)
        if style is PredictFormat.CSV:
            name = next(csv.reader([output.csv_line([name])]))[0]
        if names[name] > 0:
            names[name] -= 1
        else:
            yield picture


def _json_pictures(file: BinaryIO) -> Iterator[Written]:
    end = 0
    for line in file:
        end += len(line)
        try:
            values = json.loads(line)
            name, failed = values["image"], "error" in values
        except (ValueError, TypeError, KeyError):
            return
        if not line.endswith(b"\n"):
            return
        yield end, name, failed


def _csv_pictures(file: BinaryIO, k: int) -> Iterator[Written]:
    """A picture is known to be whole by its k-th row, by having no rank, or by the next picture."""
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
