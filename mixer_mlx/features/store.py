"""Files of vectors: written in bounded memory, and read without loading them.

.npz      `vectors` (N, ...), `names` (N,) and `origin` (JSON); of an index `stat` and `folder`, too
.npy      the vectors; names and origin are in FILE.npy.json
"""

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mixer_mlx.checks import check_keys
from mixer_mlx.errors import ConfigError
from mixer_mlx.runtime.documents import as_table, parse_json, read_text
from mixer_mlx.runtime.files import open_regular
from mixer_mlx.runtime.unzip import MemberFile

from .embed import Embedder, fingerprint
from .log import FloatName

Item = TypeVar("Item")
_BLOCK = 2**12
_MAX_NAME = 2**16
_MAX_NAMES_BYTES = 2**30


@dataclass(frozen=True)
class Origin:
    """How vectors were made: `embed.Features`, the model's name, and its `embed.fingerprint`."""

    model: str
    fingerprint: str
    layer: str
    pool: str
    normalize: bool
    exact: bool = False


def origin_of(embedder: Embedder, model: str, *, exact: bool = False) -> Origin:
    """The origin of an embedder's vectors; `model` is what the user calls it."""
    print_ = fingerprint(embedder.model, embedder.info)
    return Origin(model, print_, **asdict(embedder.features), exact=exact)


def names_path(path: Path) -> Path:
    """Where the names of a .npy file are."""
    return path.with_name(f"{path.name}.json")


def write_npz(
    target: Path,
    names: Sequence[str],
    vectors: Iterator[Any],
    shape: tuple[int, ...],
    dtype: FloatName,
    origin: Origin,
    stat: NDArray[np.int64] | None = None,
    folder: str = "",
) -> None:
    """Write a .npz file, whose vectors, each of `shape`, needn't be in memory."""
    width = max(map(len, names), default=1) or 1
    with zipfile.ZipFile(target, "w", allowZip64=True) as archive:
        with _member(archive, "vectors") as file:
            write_header(file, np.dtype(dtype), (len(names), *shape))
            for vector in vectors:
                file.write(np.ascontiguousarray(vector, dtype).tobytes())
        with _member(archive, "names", zipfile.ZIP_DEFLATED) as file:
            write_header(file, np.dtype(f"<U{width}"), (len(names),))
            for some in groups(names, _BLOCK):
                file.write(np.array(some, f"<U{width}").tobytes())
        with _member(archive, "origin") as file:
            npy.write_array(file, np.array(json.dumps(asdict(origin))))
        if stat is not None:
            with _member(archive, "stat") as file:
                npy.write_array(file, stat)
            with _member(archive, "folder") as file:
                npy.write_array(file, np.array(folder))


def _member(archive: zipfile.ZipFile, name: str, compression: int = zipfile.ZIP_STORED) -> Any:
    """An array of the archive, to write; dated 1980, so that equal content gives equal files."""
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = compression
    return archive.open(info, "w", force_zip64=True)


def write_header(file: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """The start of a .npy file, which the numbers follow."""
    values = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, values)


def groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items, `size` at a time."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some


@dataclass(frozen=True)
class Vectors:
    """A file of vectors. `array` (N, ...) is memory-mapped, float16 or float32.

    `origin` is None for a .npy file without its .json, whose names are row numbers. `stat` has size
    and time in nanoseconds of each image's file, (N, 2), if the file is the index of a folder.
    """

    names: list[str]
    array: NDArray[np.floating]
    origin: Origin | None = None
    stat: NDArray[np.int64] | None = None

    def check_model(self, embedder: Embedder, path: Path) -> None:
        """Raise ConfigError if the file `path` holds other features than the embedder's."""
        if self.origin is None:
            ours, theirs = embedder.features.shape(embedder.info.config), self.array.shape[1:]
            if ours != theirs:
                raise ConfigError(
                    f"{path} has vectors of {theirs} numbers, and the model's are {ours}; make it "
                    "with this model."
                )
        elif self.origin.fingerprint != fingerprint(embedder.model, embedder.info):
            raise ConfigError(
                f"{path} was made with another model, {self.origin.model}; use that one, or make "
                "the file again."
            )
        elif (self.origin.layer, self.origin.pool) != (
            embedder.features.layer,
            embedder.features.pool,
        ):
            raise ConfigError(
                f"{path} has features of {self.origin.layer}, pool {self.origin.pool}, not of "
                f"{embedder.features.layer}, pool {embedder.features.pool}; make the file again."
            )


_BROKEN = (zipfile.BadZipFile, zlib.error, OverflowError, MemoryError, NotImplementedError)


def read(path: Path) -> Vectors:
    """Open a .npz or .npy file that `mixer embed` made. Raises ConfigError."""
    if path.suffix.lower() not in (".npz", ".npy"):
        raise ConfigError(
            f"{path} isn't a file of vectors; make one with `features.store.write_npz`."
        )
    try:
        found = _read_npz(path) if path.suffix.lower() == ".npz" else _read_npy(path)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, EOFError, *_BROKEN) as error:
        raise ConfigError(
            f"{path} isn't an intact file of vectors ({error}); make it again with "
            "`features.store.write_npz`."
        ) from error
    if found.array.ndim < 2 or found.array.dtype.kind != "f":
        raise ConfigError(
            f"{path} holds an array of {found.array.dtype}, {found.array.shape}; expected floating-"
            "point vectors (N, C)."
        )
    if len(found.names) != len(found.array):
        raise ConfigError(
            f"{path} holds {len(found.array):,} vectors and {len(found.names):,} names; make it "
            "again with `features.store.write_npz`."
        )
    return found


def _read_npz(path: Path) -> Vectors:
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        info = archive.getinfo("vectors.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError("its vectors are compressed")
        # The local header's name and extra fields may differ in length from the directory's.
        file.seek(info.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
        file.seek(info.header_offset + 30 + int(lengths.sum()))
        array = _mapped(path, file)
        names = _read_names(archive)
        origin = _origin(parse_json(str(_small(archive, "origin.npy", 2**20))))
        stat = None
        if "stat.npy" in archive.namelist():
            stat = _small(archive, "stat.npy", 16 * len(names) + 2**12)
            if stat.shape != (len(names), 2) or stat.dtype != np.dtype(np.int64):
                raise ValueError(f"stat is {stat.dtype}, {stat.shape}")
    return Vectors(names, array, origin, stat)


def folder_of(path: Path) -> str:
    """The folder whose index the file is, as an absolute path; "" if it isn't known."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            return str(_small(archive, "folder.npy", 2**20))
    except (OSError, ValueError, KeyError, EOFError, *_BROKEN):
        return ""


def _member_file(archive: zipfile.ZipFile, name: str) -> io.BufferedReader:
    return io.BufferedReader(MemberFile(archive, archive.getinfo(name)))


def _small(archive: zipfile.ZipFile, name: str, limit: int) -> NDArray[Any]:
    """A whole array of at most `limit` bytes."""
    with _member_file(archive, name) as file:
        data = io.BytesIO(file.read(limit + 1))
    if len(data.getbuffer()) > limit:
        raise ValueError(f"{name} is too large")
    shape, dtype = _read_header(data)
    return np.frombuffer(data.read(), dtype, int(np.prod(shape, dtype=object))).reshape(shape)


def _origin(values: object) -> Origin:
    check_keys("origin", as_table(values), Origin, all_=True)
    return Origin(**as_table(values))  # type: ignore[arg-type]


def _read_names(archive: zipfile.ZipFile) -> list[str]:
    with _member_file(archive, "names.npy") as file:
        shape, dtype = _read_header(file)
        if dtype.kind != "U" or len(shape) != 1 or dtype.itemsize > 4 * _MAX_NAME:
            raise ValueError(f"names are {dtype}, {shape}")
        names: list[str] = []
        while len(names) < shape[0]:
            count = min(_BLOCK, shape[0] - len(names))
            names += np.frombuffer(file.read(count * dtype.itemsize), dtype, count).tolist()
        return names


def _read_npy(path: Path) -> Vectors:
    with open_regular(path) as file:
        array = _mapped(path, file)
    beside = names_path(path)
    if not beside.exists():
        return Vectors([f"row {row}" for row in range(len(array))], array)
    values = as_table(parse_json(read_text(beside, limit=_MAX_NAMES_BYTES)))
    names = values["images"]
    if not isinstance(names, list):
        raise ValueError("images isn't a list")
    return Vectors(list(map(str, names)), array, _origin(values["origin"]))


def _mapped(path: Path, file: BinaryIO) -> NDArray[np.floating]:
    """The array whose header begins at the file's position, memory-mapped."""
    shape, dtype = _read_header(file)
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if dtype.hasobject or file.tell() + size > path.stat().st_size:
        raise ValueError("it ends early")
    if not size:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", file.tell(), shape)


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran_order, dtype = read(file)
    if fortran_order:
        raise ValueError("it is in Fortran order")
    return shape, dtype
