"""Texts: documents of each kind, config.json of a model folder and of timm, names of classes."""

from dataclasses import asdict
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from fuzz.mutate import mutate, mutate_json
from fuzz.target import Target, written
from fuzz.weights import TINY, safetensors_sample

from mixer_mlx import checkpoint, labels
from mixer_mlx.convert import importer
from mixer_mlx.convert.fetch.download import Record
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.runtime import documents

TINY_INFO = ModelInfo(TINY, Preprocess((4, 4)), ("cat", "dog"), {"name": "tiny"})


def _make_config(chance: Random) -> bytes:
    return mutate_json(chance, [TINY_INFO.to_dict()])


def _run_config(data: bytes, folder: Path) -> None:
    written(data, folder, "config.json")
    info = checkpoint.read_info(folder)
    checkpoint.write(folder, _model(), info)
    assert checkpoint.read_info(folder) == info


@cache
def _model() -> MlpMixer:
    return MlpMixer(TINY)


_TIMM: dict[str, Any] = {
    "architecture": "mixer_b16_224",
    "num_classes": 2,
    "global_pool": "avg",
    "model_args": {"img_size": 4, "act_layer": "gelu"},
    "label_names": ["n01", "n02"],
    "label_descriptions": {"n01": "cat"},
    "pretrained_cfg": {
        "input_size": [3, 4, 4],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "label_names": None,
        "license": "apache-2.0",
    },
}


def _run_timm(data: bytes, folder: Path) -> None:
    written(data, folder, "config.json")
    weights = folder / "model.safetensors"
    if not weights.exists():
        weights.write_bytes(safetensors_sample())
    info, _ = importer.read_info(folder)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    checkpoint.write(out, _model(), info)
    assert checkpoint.read_info(out) == info


_LABELS = [b"cat\ndog\n", "\ufeffKatze\r\nHünd\x85猫\n".encode(), b'["cat", "dog"]',
           b'{"0": "cat", "1": "dog"}', b"\xff\xfec\0a\0t\0"]  # fmt: skip


def _make_labels(chance: Random) -> bytes:
    if chance.random() < 0.5:
        return mutate(chance, _LABELS)
    return mutate_json(chance, [["cat", "dog"], {"0": "cat", "1": "dog"}])


def _run_labels(data: bytes, folder: Path) -> None:
    for name in ("labels.txt", "labels.json"):
        names = labels.read_file(written(data, folder, name))
        assert all(isinstance(name, str) for name in names)


_TOML = (
    b'epochs = 3\nlr = 1e-3\nsizes = [1, [2, 3]]\nat = 1979-05-27\n[table]\na."b c" = "x\\u00e9"\n'
)
_RECORD = asdict(Record("https://host/file", "etag", size=3, sha256="0" * 64))


def _make_toml(chance: Random) -> bytes:
    if chance.random() < 0.2:
        opened = chance.choice((b"a=[", b"a={b=", b"[a.", b"a."))
        return opened * chance.choice((10, 100, 1000)) + _TOML
    return mutate(chance, [_TOML])


def _run_toml(data: bytes, folder: Path) -> None:
    _check_value(documents.read_toml(written(data, folder, "recipe.toml")))


def _run_record(data: bytes, folder: Path) -> None:
    """As `FILE.part.json` is read."""
    values = documents.read_json(written(data, folder, "record.json"))
    _check_value(values)
    record = documents.as_dataclass(Record, values)
    assert isinstance(record.url, str)
    assert record.size is None or type(record.size) is int


def _run_lines(data: bytes, folder: Path) -> None:
    """As `log.jsonl` is read, by line."""
    text = documents.read_text(written(data, folder, "lines.jsonl"))
    for line in text.splitlines():
        _check_value(documents.parse_json(line, nan=True))


def _check_value(value: object, depth: int = 0) -> None:
    """What the rest of the package may count on."""
    assert depth <= documents.MAX_DEPTH
    if isinstance(value, int):
        assert abs(value) < 10**documents.MAX_DIGITS
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_value(inner, depth + 1)


TARGETS = {
    "TOML": Target(_make_toml, _run_toml),
    "record": Target(lambda chance: mutate_json(chance, [_RECORD]), _run_record),
    "JSON Lines": Target(
        lambda chance: b"\n".join(mutate_json(chance, [_RECORD, [1, 2.5]]) for _ in range(2)),
        _run_lines,
    ),
    "config.json": Target(_make_config, _run_config),
    "timm config.json": Target(lambda chance: mutate_json(chance, [_TIMM]), _run_timm),
    "labels": Target(_make_labels, _run_labels),
}
