"""The index of a folder: its images' vectors in a file, of which only changes are computed."""

import itertools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError
from mixer_mlx.images.decode import ImageInput
from mixer_mlx.images.find import images_below
from mixer_mlx.runtime.atomic import replacing_file, written_file

from .embed import Embedder, Embedding
from .store import Origin, Vectors, origin_of, read, write_npz

Stat = tuple[int, int]
"""A file's size in bytes and time of change in nanoseconds."""
FIRST = 1024
"""The file is written for the first time after so many images."""


def update(
    folder: Path,
    file: Path,
    embedder: Embedder,
    model: str,
    *,
    batch_size: int = 32,
    on_unreadable: Callable[[Embedding], None] = lambda one: None,
    tick: Callable[[int, int], None] = lambda done, failed: None,
) -> Vectors:
    """Bring the index `file` of a folder up to date, and open it.

    Images that are new, or whose size or time changed, are embedded; those that are gone are left
    out. Vectors are float16. The file is written each time that it has doubled, so that a call that
    is killed loses half of its work at most, and an interrupted one nothing. Raises ConfigError if
    the file can't be written.
    """
    found = {name: _stat(name) for name in images_below(os.fspath(folder))}
    old = _known(file, embedder)
    kept = {
        name: row
        for row, (name, stat) in enumerate(zip(old.names, _stats(old), strict=True))
        if found.get(name) == stat
    }
    new = [name for name in found if name not in kept]
    if not new and list(kept) == old.names == list(found):
        return old
    origin, failed = origin_of(embedder, model), 0

    def note(one: Embedding) -> None:
        nonlocal failed
        failed += 1
        on_unreadable(one)

    counts = itertools.count(1)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        while True:
            size = max(FIRST, len(kept))
            part, new = new[:size], new[size:]
            with tempfile.TemporaryFile(dir=file.parent) as fresh:
                done: list[str] = []
                try:
                    for one in embedder.stream(_images(part), batch_size=batch_size):
                        _add(one, fresh, done, note)
                        tick(next(counts), failed)
                finally:
                    _write(file, os.path.realpath(folder), origin, found, old, kept, done, fresh)
            if not new:
                return read(file)
            old = read(file)
            kept = {name: row for row, name in enumerate(old.names)}
    except OSError as error:
        raise ConfigError(
            f"The index {file} can't be written: {error.strerror}; make one with "
            f"`features.index.update({str(folder)!r})`, and search in that file."
        ) from error


def store(
    file: Path, embedder: Embedder, model: str, vectors: Mapping[str, NDArray[np.floating]]
) -> None:
    """Write an index of vectors that are known, by their images' paths. Raises ConfigError."""
    found = {name: _stat(name) for name in vectors}
    stat = np.array([*found.values()], np.int64).reshape(-1, 2)
    shape, origin = (embedder.info.config.hidden_dim,), origin_of(embedder, model)
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_file(file, ConfigError) as temporary:
        rows = iter(vectors.values())
        write_npz(temporary, list(found), rows, shape, "float16", origin, stat)


def _images(names: Sequence[str]) -> Sequence[ImageInput]:
    return list(names)


def _add(
    one: Embedding,
    fresh: BinaryIO,
    done: list[str],
    on_unreadable: Callable[[Embedding], None],
) -> None:
    """Append a vector to the file `fresh`, and its name to `done`."""
    if one.vector is None:
        on_unreadable(one)
    else:
        fresh.write(one.vector.astype(np.float16).tobytes())
        done.append(str(one.image))


def _write(
    file: Path,
    folder: str,
    origin: Origin,
    found: dict[str, Stat],
    old: Vectors,
    kept: dict[str, int],
    done: Sequence[str],
    fresh: BinaryIO,
) -> None:
    fresh.flush()
    C = old.array.shape[1]
    added = np.memmap(fresh, np.float16, "r", shape=(len(done), C)) if done else np.empty((0, C))
    places = {name: (old.array, row) for name, row in kept.items()}
    places |= {name: (added, row) for row, name in enumerate(done)}
    names = [name for name in found if name in places]
    vectors = (places[name][0][places[name][1]] for name in names)
    stat = np.array([found[name] for name in names], np.int64).reshape(-1, 2)
    with replacing_file(file) as temporary:
        write_npz(temporary, names, vectors, (C,), "float16", origin, stat, folder)


def _stat(name: str) -> Stat:
    try:
        status = os.stat(name)
    except OSError:  # it can't be read either, and is reported then
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _stats(index: Vectors) -> list[Stat]:
    return [] if index.stat is None else list(map(tuple, index.stat.tolist()))


def _known(file: Path, embedder: Embedder) -> Vectors:
    """The index of before; an empty one if there is none that can be used."""
    C = embedder.info.config.hidden_dim
    nothing = Vectors([], np.empty((0, C), np.float16), None, np.empty((0, 2), np.int64))
    try:
        old = read(file)
        old.check_model(embedder, file)
    except ConfigError:
        return nothing
    return old if old.stat is not None else nothing
