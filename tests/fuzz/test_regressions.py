"""Files that once ended in something other than a value or one of our errors."""

import json
import os
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
from fuzz.weights import TINY, safetensors_sample

from mixer_mlx import checkpoint
from mixer_mlx.convert import convert, importer
from mixer_mlx.convert.timm_config import Settings
from mixer_mlx.convert.weights import npz
from mixer_mlx.errors import CheckpointError, ConversionError, SourceError
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo


def npy(header: bytes, values: bytes = b"\0" * 48) -> bytes:
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + values


def npz_file(path: Path, member: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", member)
    return path


# NumPy parses a header as Python, which raises errors other than ValueError.
@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"{'descr': '<f4', 'shape': (3, 4", "EOF in multi-line statement"),
        (b"{'descr': '<f4', 'shape': '''", "EOF in multi-line string"),
        (b"{'descr': ',f4', 'fortran_order': False, 'shape': (3, 4)}", "invalid syntax"),
    ],
)
def test_npy_header_that_is_broken(header: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=reason):
        npz.read_header(npz_file(tmp_path / "a.npz", npy(header)))


def test_npy_header_of_python_2_is_read_without_a_warning(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 4L), }\n"
    path = npz_file(tmp_path / "a.npz", npy(header))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert npz.read_header(path)["w"].shape == (3, 4)
    assert caught == []


@pytest.mark.parametrize("value", [{"name": "gelu"}, ["gelu"], 1, None])
def test_activation_that_is_no_name(value: object, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors_sample())
    (tmp_path / "config.json").write_text(json.dumps({"hidden_act": value}))
    with pytest.raises(ConversionError, match="activation"):
        importer.read_info(tmp_path)


def native(folder: Path, **source: object) -> Path:
    info = ModelInfo(TINY, Preprocess((4, 4)), ("cat", "dog"), source)
    checkpoint.save(folder, MlpMixer(TINY), info)
    return folder


def test_number_that_json_has_and_floats_do_not(tmp_path: Path) -> None:
    """Read as infinity, it could not be written again."""
    config = native(tmp_path / "model", note=5.5) / "config.json"
    config.write_text(config.read_text().replace("5.5", "1e999"))
    with pytest.raises(CheckpointError, match="1e999 is out of range"):
        checkpoint.read_info(config.parent)


def test_label_with_half_a_surrogate_pair(tmp_path: Path) -> None:
    """JSON can say "\\ud800", UTF-8 can't."""
    model = native(tmp_path / "model")
    labels = ("\ud800", "猫")
    convert(model, tmp_path / "out", settings=Settings(labels=labels))
    assert checkpoint.read_info(tmp_path / "out").labels == labels


@pytest.mark.skipif(sys.platform == "darwin", reason="NOT RUN: macOS takes no such names")
def test_file_name_that_is_no_utf8(tmp_path: Path, golden: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/w\xff.npz"))
    path.write_bytes((golden / "jax_square.npz").read_bytes())
    convert(path, tmp_path / "out")
    assert checkpoint.read_info(tmp_path / "out").source["file"] == "w\udcff.npz"
