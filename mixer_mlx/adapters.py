"""The folder of adapters: a model as its difference from the one that it was trained from.

config.json           as in a model folder
adapters.safetensors  the thin matrices, `blocks.0.token_mixing.fc1.lora_a`, and the head
adapter_config.json   rank and scale, as mlx-lm has them, and what identifies the other model
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from . import checkpoint
from .checks import check_number, check_whole
from .errors import CheckpointError, ConfigError
from .lora import add_adapters, fused, is_thin
from .model import MlpMixer
from .model_info import ModelInfo
from .runtime.documents import as_table, read_json

ADAPTERS_FILE = "adapters.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"
FILES = (checkpoint.CONFIG_FILE, ADAPTERS_FILE, ADAPTER_CONFIG_FILE)


@dataclass(frozen=True)
class Base:
    """The model that adapters were trained from.

    `model` is its name, address or absolute path; `sha256` is of its `fingerprint`.
    """

    model: str
    sha256: str

    def lies_in(self, folder: Path) -> bool:
        """Whether the model is a path in a folder, or the folder."""
        path = Path(self.model)  # a name isn't relative to anything
        return path.is_absolute() and path.resolve().is_relative_to(folder.resolve())


@dataclass(frozen=True)
class Adapters:
    """What `adapter_config.json` says."""

    base: Base
    rank: int
    scale: float


def fingerprint(model: MlpMixer) -> str:
    """The SHA-256 of a model's weights in float32, without its head and adapters."""
    digest = hashlib.sha256()
    weights = _frozen(model)
    for name in sorted(weights):
        values = np.ascontiguousarray(weights[name])
        digest.update(f"{name} {list(values.shape)}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()


def _frozen(model: MlpMixer) -> dict[str, mx.array]:
    """A model's weights in float32, without its head and adapters."""
    weights: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    return {name: w.astype(mx.float32) for name, w in weights.items() if not _is_trained(name)}


def _is_trained(name: str) -> bool:
    return is_thin(name) or name.startswith("head.")


def is_adapters(folder: Path) -> bool:
    """Whether a folder holds adapters."""
    return (folder / ADAPTER_CONFIG_FILE).is_file()


def read(folder: Path) -> Adapters:
    """Read `adapter_config.json`. Raises CheckpointError."""
    path = folder / ADAPTER_CONFIG_FILE
    try:
        values = read_json(path)
        sizes = as_table(values.get("lora_parameters"))
        base = [values.get("model"), values.get("model_sha256")]
        if not all(isinstance(text, str) for text in base):
            raise ConfigError("it doesn't say which model it belongs to.")
        check_whole("rank", sizes.get("rank"), 1, 4096)
        check_number("scale", sizes.get("scale"), 0, 1e6)
    except ConfigError as error:
        raise CheckpointError(f"{path} can't be used: {error}") from error
    return Adapters(Base(*base), sizes["rank"], sizes["scale"])  # type: ignore[arg-type]


def save(folder: Path, model: MlpMixer, info: ModelInfo, adapters: Adapters) -> None:
    """Write the adapters and the head of a model; other files in the folder are kept.

    Raises CheckpointError.
    """
    weights: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    trained = {name: weight for name, weight in weights.items() if _is_trained(name)}
    config = {
        "fine_tune_type": "lora",
        "lora_parameters": {"rank": adapters.rank, "scale": adapters.scale, "dropout": 0.0},
        "model": adapters.base.model,
        "model_sha256": adapters.base.sha256,
        "num_layers": info.config.num_blocks,
    }

    def write(to: Path) -> None:
        checkpoint.write_config(to, info)
        mx.save_safetensors(str(to / ADAPTERS_FILE), trained, metadata={"format": "mlx"})
        (to / ADAPTER_CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")

    checkpoint.put(folder, write, FILES, force=True, beside=True)


def load(
    folder: Path, base: MlpMixer, info: ModelInfo | None = None, dtype: mx.Dtype | None = None
) -> MlpMixer:
    """The ordinary model that adapters make of their base, as `dtype` (None: float32).

    `base` may have another head, or adapters of its own, which are ignored. `info` replaces
    `read_info(folder)`. Raises CheckpointError if it isn't the model that they were trained from,
    and for damaged files.
    """
    found, info = read(folder), info or checkpoint.read_info(folder)
    if fingerprint(base) != found.base.sha256:
        raise CheckpointError(
            f"{folder} holds adapters for {found.base.model}, whose weights aren't those they were "
            "trained from any more; restore that model."
        )
    model = MlpMixer(info.config)
    add_adapters(model, found.rank, found.scale)
    weights = _frozen(base)
    _check(folder / ADAPTERS_FILE, weights, model)
    weights |= checkpoint.read_tensors(folder / ADAPTERS_FILE)
    made = fused(checkpoint.fill(model, weights, None))
    if dtype is not None:
        made.set_dtype(dtype)
        mx.eval(made.parameters())
    return made


def _check(path: Path, frozen: Mapping[str, mx.array], model: MlpMixer) -> None:
    """Raise CheckpointError unless a file has what a model needs beside its frozen weights."""
    expected = {name: (shape, "F32") for name, shape in checkpoint.parameter_shapes(model).items()}
    found = {name: (tuple(w.shape), "F32") for name, w in frozen.items()}
    found |= checkpoint.read_header(path)
    if wrong := sorted(k for k in expected | found if expected.get(k) != found.get(k)):
        raise CheckpointError(
            f"{path} doesn't fit its config: {checkpoint.summarize(wrong)}; use an intact copy."
        )
