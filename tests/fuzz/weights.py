"""Weights: .npz and .safetensors through the importer, and what is looked at of a .pth."""

import io
import json
import re
import struct
import zipfile
from contextlib import suppress
from functools import cache
from math import prod
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz.mutate import mutate, mutate_json
from fuzz.target import Target, written
from safetensors import SafetensorError, safe_open

from mixer_mlx import checkpoint
from mixer_mlx.config import MixerConfig
from mixer_mlx.convert import importer
from mixer_mlx.convert.export.tensors import foreign_tensors
from mixer_mlx.convert.names import JAX, TIMM
from mixer_mlx.convert.weights import npz, torch_file
from mixer_mlx.errors import MixerError
from mixer_mlx.model import MlpMixer

TINY = MixerConfig(
    image_size=(4, 4),
    patch_size=2,
    num_blocks=1,
    hidden_dim=4,
    tokens_mlp_dim=3,
    channels_mlp_dim=5,
    num_classes=2,
)
_LAYOUTS = {"jax": JAX, "timm": TIMM}


@cache
def _tensors(style: str) -> dict[str, np.ndarray]:
    """A tiny model's tensors under foreign names; which numbers they hold is all the same."""
    return {
        name: np.linspace(-1, 1, value.size, dtype=np.float32).reshape(value.shape)
        for name, value in foreign_tensors(MlpMixer(TINY), _LAYOUTS[style]).items()
    }


@cache
def _npz_samples() -> list[bytes]:
    files = []
    for write in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        write(file, **_tensors("jax"))
        files.append(file.getvalue())
    return files


def _make_npz(chance: Random) -> bytes:
    """A damaged archive, or an intact one around damaged arrays."""
    if chance.random() < 0.4:
        return mutate(chance, _npz_samples())
    with zipfile.ZipFile(io.BytesIO(_npz_samples()[0])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(list(members))
    members[name] = mutate(chance, [members[name]])
    if chance.random() < 0.2:
        members[chance.choice(("../../evil.npy", "", "a.npy", "x" * 300, name + ".npy"))] = b""
    return _zipped(members, chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _zipped(members: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, packing)
    return file.getvalue()


def _run_npz(data: bytes, folder: Path) -> None:
    path = written(data, folder, "weights.npz")
    try:
        npz.read_header(path)
    finally:
        importer.import_model(path)


@cache
def _safetensors_parts() -> tuple[dict[str, Any], bytes]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, value in _tensors("timm").items():
        offsets = [len(body), len(body) + value.nbytes]
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": offsets}
        body += value.tobytes()
    return header, body


def _safetensors(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def safetensors_sample() -> bytes:
    """An intact file with timm's names."""
    header, body = _safetensors_parts()
    return _safetensors(json.dumps(header).encode(), body)


def _make_safetensors(chance: Random) -> bytes:
    """A damaged file, or an intact one around a damaged header."""
    if chance.random() < 0.3:
        return mutate(chance, [safetensors_sample()])
    header, body = _safetensors_parts()
    if chance.random() < 0.3:
        name = chance.choice(list(header)[1:])
        changed = {**header[name], "dtype": chance.choice(_KINDS)}
        return _safetensors(json.dumps({**header, name: changed}).encode(), body)
    return _safetensors(mutate_json(chance, [header, header["norm.weight"]]), body)


_KINDS = ("F16", "BF16", "F64", "I64", "BOOL", "F8_E4M3", "F4", "U8", "x")


def run_safetensors(data: bytes, folder: Path) -> None:
    """Whatever the safetensors package refuses is refused, and what is read covers the file."""
    path = written(data, folder, "weights.safetensors")
    if _refused_by_package(path):
        with suppress(MixerError):
            checkpoint.read_header(path)
            raise AssertionError("read_header takes what the safetensors package refuses")
        importer.import_model(path)
        raise AssertionError("import_model takes what the safetensors package refuses")
    _check_cover(data, checkpoint.read_header(path))
    importer.import_model(path)


def _refused_by_package(path: Path) -> bool:
    try:
        with safe_open(str(path), framework="numpy"):
            return False
    except (SafetensorError, OSError):
        return True


def _check_cover(data: bytes, header: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """Tensors lie one behind the other to the end of the file, with the bytes of their shapes."""
    (length,) = struct.unpack_from("<Q", data)
    said = json.loads(data[8 : 8 + length])
    end = 0
    for name, (shape, dtype) in sorted(header.items(), key=lambda e: said[e[0]]["data_offsets"]):
        digits = re.match(r"[A-Z]+(\d+)", dtype)
        bits = int(digits[1]) if digits else 8  # BOOL
        start, stop = said[name]["data_offsets"]
        assert (start, tuple(said[name]["shape"])) == (end, shape)
        assert (stop - start) * 8 == prod(shape) * bits
        end = stop
    assert end == len(data) - 8 - length


@cache
def _pth_members() -> dict[str, bytes]:
    pickled = b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01K\x01s."
    return {
        "archive/data.pkl": pickled,
        "archive/data/0": bytes(range(40)),
        "archive/version": b"3",
    }


def _make_pth(chance: Random) -> bytes:
    members = dict(_pth_members())
    if chance.random() < 0.3:
        name = chance.choice(list(members))
        members[name] = mutate(chance, [members[name]])
        return _zipped(members, chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    old = bytes.fromhex("8002 8a0a6cfc9c46f9206aa85019 2e") + members["archive/data.pkl"]
    return mutate(chance, [_zipped(members), _zipped(members), old])


def _run_pth(data: bytes, folder: Path) -> None:
    """What the parent looks at before a process with PyTorch sees the file."""
    path = written(data, folder, "weights.pth")
    if not torch_file.is_legacy(data[:32]):
        torch_file._check_archive(path)


TARGETS = {
    "npz": Target(_make_npz, _run_npz),
    "safetensors": Target(_make_safetensors, run_safetensors),
    "pth": Target(_make_pth, _run_pth),
}
