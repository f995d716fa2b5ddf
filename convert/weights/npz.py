"""Read foreign `.npz` files: NumPy's parser, no pickle, sizes checked before memory is taken.

A 179-byte archive can claim an array of 400 GB, and a few MB of zeros can unpack to as much. So
every member's header is read first and compared with the member's size; nothing is unpacked until
the caller has checked the shapes against a model.
"""

import lzma
import math
import os
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.lib import format as npy

from mixer_mlx.errors import SourceError
from mixer_mlx.runtime.unzip import MemberFile

_MAX_MEMBERS = 100_000
_READ_HEADER = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,  # encrypted members; RecursionError is one of these
    NotImplementedError,  # unknown compression
    OverflowError,
    MemoryError,
    Warning,
)


@dataclass(frozen=True)
class Member:
    """What a member's header says. `dtype` "V2" is how NumPy writes JAX's bfloat16."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def is_integer(self) -> bool:
        """Whether it holds integers or booleans, as counters and masks do."""
        return self.dtype.kind in "iub"


def read_header(path: str | os.PathLike[str]) -> dict[str, Member]:
    """Names of an `.npz` file, without ".npy" -> shape and dtype. Raises SourceError."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                info.filename.removesuffix(".npy"): _member(archive, info)
                for info in _members(archive)
            }
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file; a bfloat16's two bytes are widened to float32.

    Call `read_header` first and check its shapes. Raises SourceError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                info.filename.removesuffix(".npy"): _array(archive, info)
                for info in _members(archive)
            }
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise ValueError(f"it has {len(members)} members")
    names = [info.filename for info in members]
    if len(set(names)) != len(names):
        raise ValueError("two members have the same name")
    if others := [name for name in names if not name.endswith(".npy")]:
        raise ValueError(f"its member {others[0]} isn't an array")
    return members


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    with MemberFile(archive, info) as file:
        shape, _, dtype = _array_header(file)
        size = file.tell() + math.prod(shape) * dtype.itemsize
    if any(side < 0 for side in shape) or size != info.file_size:
        raise ValueError(f"its member {info.filename} has another size than its header says")
    return Member(shape, dtype)


def _array_header(file: MemberFile) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = npy.read_magic(file)
    if version not in _READ_HEADER:
        raise ValueError(f"version {version} of the array format isn't supported")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for headers that Python 2 wrote
            shape, fortran_order, dtype = _READ_HEADER[version](file)
    except Exception as error:  # NumPy runs Python's parsers on it, which raise anything at all
        raise ValueError(f"the header of an array can't be read ({error})") from error
    if dtype.kind not in "fiub" and dtype != np.dtype("V2"):
        raise ValueError(f"it holds {dtype}, not numbers")
    return shape, fortran_order, dtype


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with MemberFile(archive, info) as file:
        shape, fortran_order, dtype = _array_header(file)
        values = np.frombuffer(file.read(), dtype)
    array = values.reshape(shape, order="F" if fortran_order else "C")
    if dtype == np.dtype("V2"):
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array


def _unreadable(path: str | os.PathLike[str], error: BaseException) -> SourceError:
    reason = str(error) or type(error).__name__
    return SourceError(f"{os.fspath(path)} isn't a readable .npz file: {reason}.")
