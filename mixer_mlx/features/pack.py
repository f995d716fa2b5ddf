"""A complete log of vectors -> a file in one of four formats, in bounded memory.

.npz      `vectors` (N, ...), `names` (N,) and `origin` (JSON)
.npy      the vectors; names and origin are in FILE.npy.json
.jsonl    `{"image": name, "vector": [...]}` or `{"image": name, "error": sentence}` in each line
.parquet  the columns image, vector and error

An image that couldn't be read has no row in the first two.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mixer_mlx.errors import ConfigError
from mixer_mlx.runtime.atomic import replacing_file

from .log import Log, Record
from .store import Origin, groups, names_path, write_header, write_npz

SUFFIXES = (".npz", ".npy", ".jsonl", ".parquet")
WITH_ERRORS = (".jsonl", ".parquet")
"""Formats in which an image that can't be read has a row."""


def pack(log: Log, target: Path, path: Path, origin: Origin) -> None:
    """Write a complete log to `target`, which will be called `path`: its suffix is the format.

    Raises OSError.
    """
    writers: dict[str, Callable[..., None]] = {
        ".npz": _write_npz,
        ".npy": _write_npy,
        ".jsonl": _write_jsonl,
        ".parquet": _write_parquet,
    }
    if path.suffix.lower() == ".npy":
        with replacing_file(names_path(path)) as names:
            _write_names(log, names, origin)
    writers[path.suffix.lower()](log, target, origin)


def _write_npz(log: Log, target: Path, origin: Origin) -> None:
    names = [record.name for record in _good(log, vectors=False)]
    write_npz(target, names, (r.vector for r in _good(log)), log.shape, log.dtype, origin)


def _write_npy(log: Log, target: Path, origin: Origin) -> None:
    count = sum(1 for _ in _good(log, vectors=False))
    with target.open("wb") as file:
        write_header(file, np.dtype(log.dtype), (count, *log.shape))
        for record in _good(log):
            file.write(np.ascontiguousarray(record.vector).tobytes())


def _write_names(log: Log, target: Path, origin: Origin) -> None:
    with target.open("w", encoding="ascii") as file:
        file.write(json.dumps({"origin": asdict(origin)})[:-1] + ', "images": [')
        for number, record in enumerate(_good(log, vectors=False)):
            file.write((",\n" if number else "\n") + json.dumps(record.name))
        file.write("\n]}\n")


def _write_jsonl(log: Log, target: Path, origin: Origin) -> None:
    with target.open("w", encoding="ascii") as file:
        for record in log.records():
            file.write(json.dumps(json_record(record.name, record.vector, record.error)) + "\n")


def json_record(name: str, vector: Any, error: str | None) -> dict[str, object]:
    """An image of a .jsonl file; numbers have the digits that give back the same float."""
    if error is not None:
        return {"image": name, "error": error}
    shortest = [float(str(number)) for number in vector.ravel()]
    return {"image": name, "vector": np.reshape(shortest, vector.shape).tolist()}


def check_pyarrow() -> None:
    """Raise ConfigError if pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "Parquet needs the extra `parquet`: pip install 'mixer-mlx[parquet]'; .npz needs no "
            "extra."
        ) from error


def _write_parquet(log: Log, target: Path, origin: Origin) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    kind = pyarrow.from_numpy_dtype(np.dtype(log.dtype))
    for side in reversed(log.shape):
        kind = pyarrow.list_(kind, side)
    text = pyarrow.string()
    schema = pyarrow.schema([("image", text), ("vector", kind), ("error", text)])
    schema = schema.with_metadata({"mixer_mlx": json.dumps(asdict(origin))})
    rows = max(1, 2**24 // (int(np.prod(log.shape)) * np.dtype(log.dtype).itemsize))
    with ParquetWriter(target, schema) as writer:
        for some in groups(log.records(), rows):
            columns = [
                pyarrow.array([_utf8(record.name) for record in some], text),
                pyarrow.array(
                    [None if r.vector is None else r.vector.tolist() for r in some], kind
                ),
                pyarrow.array([r.error and _utf8(r.error) for r in some], text),
            ]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))


def _utf8(text: str) -> str:
    """Bytes that aren't UTF-8, which Parquet can't hold, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _good(log: Log, *, vectors: bool = True) -> Iterator[Record]:
    return (record for record in log.records(vectors=vectors) if record.error is None)
