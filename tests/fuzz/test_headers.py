"""Headers and settings of every shape that their formats allow, and some that they don't."""

import json
import math
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.texts import TARGETS as TEXTS
from fuzz.weights import run_safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixer_mlx.config import MAX_PARAMETERS, MixerConfig
from mixer_mlx.convert.weights import npz
from mixer_mlx.errors import ConfigError, MixerError, SourceError
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model_info import ModelInfo

# Nothing is kept between runs, and every run tries the same.
tried = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

EDGES = [2**k + d for k in (7, 15, 16, 31, 32, 53, 62, 63, 64) for d in (-1, 0, 1)]
integers = st.one_of(st.integers(-3, 40), st.sampled_from(EDGES), st.integers())
shapes = st.lists(st.one_of(st.integers(0, 5), integers), max_size=5)
names = st.one_of(st.sampled_from(["a", "b", "__metadata__", "stem.proj.weight"]), st.text())
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), integers, st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=8,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One folder for all examples of a test."""
    return tmp_path


def allowed(run: Any, *arguments: Any) -> None:
    with suppress(MixerError):
        run(*arguments)


dtypes = st.sampled_from(["F32", "F16", "BF16", "F64", "I64", "BOOL", "F8_E5M2", "f32", ""])
tensors = st.fixed_dictionaries(
    {
        "dtype": st.one_of(dtypes, json_values),
        "shape": st.one_of(shapes, json_values),
        "data_offsets": st.one_of(st.lists(integers, min_size=2, max_size=2), json_values),
    }
)


@st.composite
def fitting_tensors(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """A header that is as it should be, but for one offset now and then; the length of its data."""
    header: dict[str, Any] = {}
    end = 0
    for name in draw(st.lists(names.filter(lambda name: name != "__metadata__"), unique=True)):
        dtype, size = draw(st.sampled_from([("F32", 4), ("F16", 2), ("F64", 8), ("U8", 1)]))
        shape = draw(st.lists(st.integers(0, 5), max_size=4))
        start, end = end, end + size * math.prod(shape)
        off = draw(st.sampled_from([0] * 12 + [1, -1, 2**32, 2**64]))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end + off]}
    return header, end


@tried
@given(header=st.dictionaries(names, st.one_of(tensors, json_values)), size=st.integers(0, 99))
def test_safetensors_headers(header: dict[str, Any], size: int, folder: Path) -> None:
    text = json.dumps(header).encode()
    allowed(run_safetensors, struct.pack("<Q", len(text)) + text + b"\0" * size, folder)


@tried
@given(fitting=fitting_tensors(), more=st.sampled_from([0] * 6 + [-1, 1, 8]))
def test_safetensors_headers_that_nearly_fit(
    fitting: tuple[dict[str, Any], int], more: int, folder: Path
) -> None:
    header, size = fitting
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + b"\0" * max(0, size + more)
    allowed(run_safetensors, data, folder)


@tried
@given(
    shape=shapes,
    descr=st.sampled_from(["<f4", ">f8", "<f2", "|V2", "<i4", "|O", "<U9", "<M8[s]", "", "f"]),
    order=st.one_of(st.booleans(), st.integers()),
    version=st.sampled_from([(1, 0), (2, 0), (3, 0), (0, 0), (1, 1)]),
    size=st.integers(0, 200),
)
def test_npy_headers(
    shape: list[int], descr: str, order: object, version: tuple[int, int], size: int, folder: Path
) -> None:
    """What is taken has just the bytes that its header says."""
    text = repr({"descr": descr, "fortran_order": order, "shape": tuple(shape)}).encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    member = b"\x93NUMPY" + bytes(version) + length + text + b"\0" * size
    path = folder / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", member)
    try:
        found = npz.read_header(path)["w"]
    except SourceError:
        return
    assert found.shape == tuple(shape)
    assert math.prod(shape) * np.dtype(descr).itemsize == size
    with suppress(SourceError):  # (0, 2**62) has no bytes, and is more than NumPy can count
        assert npz.read_arrays(path)["w"].shape == tuple(shape)


SETTINGS = ModelInfo(MixerConfig.variant("S/32"), Preprocess((224, 224))).to_dict()


@tried
@given(changes=st.dictionaries(st.sampled_from(sorted(SETTINGS)), json_values, max_size=3))
def test_native_configs(changes: dict[str, Any]) -> None:
    try:
        info = ModelInfo.from_dict({**SETTINGS, **changes})
    except ConfigError:
        return
    assert ModelInfo.from_dict(info.to_dict()) == info
    assert info.config.num_parameters <= MAX_PARAMETERS


@tried
@given(data=json_values)
@pytest.mark.parametrize("parser", TEXTS)
def test_any_json(parser: str, data: object, folder: Path) -> None:
    allowed(TEXTS[parser].run, json.dumps(data).encode(), folder)
