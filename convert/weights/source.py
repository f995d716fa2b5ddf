"""A file or a folder of weights -> names, shapes, and a way to read them."""

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlx.core as mx
import numpy as np
from safetensors import safe_open

from mixer_mlx import checkpoint
from mixer_mlx.errors import CheckpointError, ConfigError, SourceError
from mixer_mlx.runtime.documents import read_json
from mixer_mlx.runtime.macos import entries

from . import npz, torch_file

_SAFETENSORS_FLOATS = {"F64", "F32", "F16", "BF16"}
_SAFETENSORS_INTEGERS = {"I64", "U64", "I32", "U32", "I16", "U16", "I8", "U8", "BOOL"}
_WEIGHTS_SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Source:
    """Foreign weights on this machine, opened but not read.

    `shapes` are the names and shapes of the tensors with floating-point numbers; `integers` the
    names of those with integers or booleans, which no Mixer has. `settings` is the content of a
    `config.json` beside the weights, as in timm's repositories on the Hub, or empty. `notes` say
    what was chosen from the content, one phrase each. `converted` is a copy to read if `path`
    can't be read itself.
    """

    path: Path
    kind: str
    shapes: Mapping[str, tuple[int, ...]]
    integers: frozenset[str] = frozenset()
    settings: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    converted: torch_file.Converted | None = None

    def read(self) -> dict[str, mx.array]:
        """At least the tensors in `shapes`, with the axes of the file.

        Check `shapes` first: it takes memory.
        """
        if self.kind == "npz":
            arrays = npz.read_arrays(self.path)
            return {name: _mlx_array(arrays[name]) for name in self.shapes}
        return _read_safetensors(self.converted.path if self.converted else self.path)

    def sha256(self) -> str:
        """Checksum of the weights file, in hexadecimal."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def open_source(path: Path) -> Source:
    """Open a weights file, or a folder that holds one and its `config.json`.

    The format is found from the content, not the name. Raises SourceError.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise SourceError(f"{path} does not exist; give a weights file or a model folder.")
    with path.open("rb") as file:
        start = file.read(32)
    if start.startswith(b"PK\x03\x04"):
        return _open_archive(path)
    if start[8:9] == b"{":
        return _open_safetensors(path)
    if torch_file.is_legacy(start):
        return _open_torch(path)
    raise SourceError(
        f"{path} isn't a .npz, .safetensors or PyTorch file; give official JAX weights or timm's."
    )


def _open_folder(folder: Path) -> Source:
    preferred = folder / checkpoint.WEIGHTS_FILE
    found = [preferred] if preferred.is_file() else _weights_files(folder)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise SourceError(
            f"{folder} must contain one weights file ({', '.join(_WEIGHTS_SUFFIXES)}), but has "
            f"{names}; give the file itself."
        )
    source = open_source(found[0])
    config = folder / checkpoint.CONFIG_FILE
    if not config.exists():
        return source
    try:
        settings = read_json(config)
    except ConfigError as error:
        raise SourceError(f"{config} can't be used: {error}") from error
    return replace(source, settings=settings)


def _weights_files(folder: Path) -> list[Path]:
    return sorted(path for path in entries(folder) if path.suffix in _WEIGHTS_SUFFIXES)


def _open_archive(path: Path) -> Source:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise SourceError(f"{path} isn't a readable .npz or PyTorch file: {error}.") from error
    if any(name.endswith("data.pkl") for name in names):
        return _open_torch(path)
    header = npz.read_header(path)
    integers = frozenset(name for name, member in header.items() if member.is_integer)
    shapes = {name: member.shape for name, member in header.items() if name not in integers}
    return Source(path, "npz", shapes, integers)


def _open_torch(path: Path) -> Source:
    converted = torch_file.to_safetensors(path)
    try:
        copy = _open_safetensors(converted.path)
    except SourceError as error:
        raise SourceError(str(error).replace(str(converted.path), str(path))) from error
    return replace(copy, path=path, kind="torch", notes=converted.notes, converted=converted)


def _open_safetensors(path: Path) -> Source:
    try:
        header = checkpoint.read_header(path)
    except CheckpointError as error:
        raise SourceError(str(error)) from error
    for name, (_, dtype) in header.items():
        if dtype not in _SAFETENSORS_FLOATS | _SAFETENSORS_INTEGERS:
            raise SourceError(f"{path}: {name} holds {dtype}, not floating-point numbers.")
    if {"F64", "BF16"} <= {dtype for _, dtype in header.values()}:
        # MLX reads no float64, NumPy no bfloat16.
        raise SourceError(f"{path} holds both float64 and bfloat16; store it in only one of them.")
    integers = frozenset(n for n, (_, dtype) in header.items() if dtype in _SAFETENSORS_INTEGERS)
    shapes = {name: shape for name, (shape, _) in header.items() if name not in integers}
    return Source(path, "safetensors", shapes, integers)


def _read_safetensors(path: Path) -> dict[str, mx.array]:
    header = checkpoint.read_header(path)
    if all(dtype != "F64" for _, dtype in header.values()):
        return checkpoint.read_tensors(path)
    with safe_open(str(path), framework="numpy") as file:  # MLX has no float64
        return {
            name: _mlx_array(file.get_tensor(name))
            for name, (_, dtype) in header.items()
            if dtype in _SAFETENSORS_FLOATS
        }


def _mlx_array(values: np.ndarray) -> mx.array:
    return mx.array(values.astype(np.float16 if values.dtype.itemsize == 2 else np.float32))
