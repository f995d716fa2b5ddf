"""Vectors written as they come, one record for each image: a line of JSON, then the vector's bytes.

A log that ends in the middle of a record is good up to there, so that an interrupted run can be
resumed.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.runtime.documents import parse_json

from .embed import Embedding

Vector = NDArray[np.floating]
FloatName = Literal["float16", "float32"]
_MAX_LINE = 2**20


class Record(NamedTuple):
    """An image's name with its vector or error, and where the record ends in the file."""

    name: str
    vector: Vector | None
    error: str | None
    end: int


@dataclass(frozen=True)
class Log:
    """`file` is open for reading and writing; a vector has this shape and dtype."""

    file: BinaryIO
    shape: tuple[int, ...]
    dtype: FloatName

    def add(self, found: Embedding) -> None:
        """Append an image."""
        error = None if found.error is None else str(found.error)
        self.write(str(found.image), found.vector, error)

    def write(self, name: str, vector: Vector | None, error: str | None = None) -> None:
        """Append a record; it has a vector, or an error."""
        line = {"image": name} if error is None else {"image": name, "error": error}
        self.file.write(json.dumps(line).encode() + b"\n")
        if vector is not None:
            # An overflow of float16 would be silent: features beyond 65,504 become its largest.
            limit = np.finfo(self.dtype).max
            self.file.write(np.clip(vector, -limit, limit).astype(self.dtype).tobytes())

    def records(self, *, vectors: bool = True) -> Iterator[Record]:
        """All complete records from the start; without `vectors`, these are passed over."""
        self.file.flush()
        size = os.fstat(self.file.fileno()).st_size
        length = int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize
        end = 0
        while line := _line(self.file, end):
            try:
                values: Any = parse_json(line)
                name, error = values["image"], values.get("error")
            except (ValueError, TypeError, KeyError, AttributeError):
                return
            start = end + len(line)
            end = start if error is not None else start + length
            if end > size:
                return
            vector = None
            if vectors and error is None:
                vector = np.frombuffer(self.file.read(length), self.dtype).reshape(self.shape)
            yield Record(name, vector, error, end)

    def truncate(self, size: int) -> None:
        """Cut off what comes after `size` bytes; new records are written there."""
        self.file.seek(size)
        self.file.truncate()


def _line(file: BinaryIO, start: int) -> bytes:
    """The whole line that begins there, or nothing."""
    file.seek(start)
    line = file.readline(_MAX_LINE)
    return line if line.endswith(b"\n") else b""
