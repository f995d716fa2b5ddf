"""Texts: the config.json of a model folder and of timm's repositories, and names of classes."""

from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from fuzz.mutate import mutate, mutate_json
from fuzz.target import Target, written
from fuzz.weights import TINY, safetensors_sample

from mixer_mlx import checkpoint, labels
from mixer_mlx.checkpoint import ModelInfo
from mixer_mlx.convert import importer
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model import MlpMixer

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


TARGETS = {
    "config.json": Target(_make_config, _run_config),
    "timm config.json": Target(lambda chance: mutate_json(chance, [_TIMM]), _run_timm),
    "labels": Target(_make_labels, _run_labels),
}
