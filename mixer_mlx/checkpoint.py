"""The native model folder: `config.json` and `model.safetensors`, read strictly, written whole.

`config.json` has the fields of `MixerConfig`, and `preprocess`, `id2label`, `source` (the origin of
the weights), and `quantization` if weights are quantised. The keys of `model.safetensors` are
module paths, such as `blocks.0.token_mixing.fc1.weight`; linear weights are (out, in), the stem is
(C, P, P, in), and those of quantised layers are as in `quantization`.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import mlx.core as mx
from mlx.utils import tree_flatten
from safetensors import SafetensorError, safe_open

from mixer_mlx.runtime.atomic import replacing_file, replacing_folder, sync
from mixer_mlx.runtime.documents import parse_json, read_json
from mixer_mlx.runtime.files import open_regular
from mixer_mlx.runtime.macos import entries

from .choices import ModelType
from .errors import CheckpointError, ConfigError
from .model import MlpMixer
from .model_info import ModelInfo
from .quantization import quantize_layers

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
RUN_FILE = "run.json"
"""Marks the folder of a training run, whose best model is in `best/`."""

_DTYPES = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}
_QUANTIZED = {mx.uint32: "U32", mx.uint8: "U8"}  # packed weights, and scales of Microscaling


def read_info(folder: str | os.PathLike[str]) -> ModelInfo:
    """Read only `config.json`. Raises CheckpointError."""
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} isn't a model folder: it has no {CONFIG_FILE}.")
    try:
        return ModelInfo.from_dict(read_json(path))
    except ConfigError as error:
        raise CheckpointError(f"{path} can't be used: {error}") from error


def write_info(folder: str | os.PathLike[str], info: ModelInfo) -> None:
    """Replace `config.json` of a native folder alone. Raises CheckpointError."""
    path = Path(folder) / CONFIG_FILE
    try:
        with replacing_file(path) as temporary:
            temporary.write_text(_json(info), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{path} can't be written: {error.strerror}.") from error


def is_native(path: Path) -> bool:
    """Whether a path is a native model folder."""
    try:
        return read_json(path / CONFIG_FILE).get("model_type") in get_args(ModelType)
    except ConfigError:
        return False


def read_header(path: str | os.PathLike[str]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Names of a .safetensors file -> (shape, dtype as the file spells it).

    Reads no tensor. The safetensors package checks sizes, gaps and overlaps, and `mx.load` doesn't:
    every file must pass through here before `mx.load`. Raises CheckpointError.
    """
    try:
        open_regular(path).close()  # safe_open would wait for a FIFO's writer
        with safe_open(os.fspath(path), framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            header = {
                name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()
            }
        _check_names(path)
    except (SafetensorError, OSError, ConfigError) as error:
        reason = str(error).removesuffix(".")
        raise CheckpointError(f"{path} isn't a readable .safetensors file ({reason}).") from error
    return header


def _check_names(path: str | os.PathLike[str]) -> None:
    """Raise ConfigError if a name is repeated, of which readers take the last in silence."""
    with open_regular(path) as file:
        parse_json(file.read(int.from_bytes(file.read(8), "little")))


def load(
    folder: str | os.PathLike[str], dtype: mx.Dtype | None = None, info: ModelInfo | None = None
) -> MlpMixer:
    """Load a native folder, with its weights evaluated as `dtype` (None: as stored).

    `info` replaces `read_info(folder)`. Before allocating memory, raises CheckpointError that names
    each missing or unknown tensor and each wrong shape or dtype.
    """
    model = _empty(info or read_info(folder))
    path = Path(folder) / WEIGHTS_FILE
    if faults := _faults(read_header(path), model):
        raise CheckpointError(f"{path} doesn't fit its config: {summarize(faults)}.")
    return fill(model, read_tensors(path), dtype)


def read_tensors(path: Path) -> dict[str, mx.array]:
    """The tensors, lazily, of a .safetensors file that `read_header` accepted."""
    return mx.load(str(path))  # type: ignore[return-value]  # a dict, for this format


def fill(model: MlpMixer, weights: Mapping[str, mx.array], dtype: mx.Dtype | None) -> MlpMixer:
    """Set a model's weights, cast to `dtype` unless they are quantised, and evaluate them.

    Evaluated here because only the thread that made a lazy array can evaluate it.
    """
    model.load_weights(list(weights.items()), strict=True)
    if dtype is not None:
        model.set_dtype(dtype)
    mx.eval(model.parameters())
    return model


def parameter_shapes(model: MlpMixer) -> dict[str, tuple[int, ...]]:
    """Names of all parameters -> shape. Evaluates nothing."""
    return {name: tuple(value.shape) for name, value in _parameters(model).items()}


def _parameters(model: MlpMixer) -> dict[str, mx.array]:
    return dict(tree_flatten(model.parameters()))


def _empty(info: ModelInfo) -> MlpMixer:
    """A model of the kind that the info describes, whose weights nothing has computed."""
    model = MlpMixer(info.config)
    if info.quantization:
        quantize_layers(model, info.quantization)
    return model


def _faults(header: Mapping[str, tuple[tuple[int, ...], str]], model: MlpMixer) -> list[str]:
    """What is wrong with names, shapes and dtypes, compared with those of a model."""
    expected = parameter_shapes(model)
    integers = {
        name: _QUANTIZED[value.dtype]
        for name, value in _parameters(model).items()
        if value.dtype in _QUANTIZED
    }
    faults = [f"{name} is missing" for name in expected if name not in header]
    for name, (shape, dtype) in header.items():
        if name not in expected:
            faults.append(f"{name} isn't part of the model")
        elif shape != expected[name]:
            faults.append(f"{name} has shape {list(shape)}, not {list(expected[name])}")
        elif dtype not in (wanted := [integers[name]] if name in integers else [*_DTYPES]):
            faults.append(f"{name} has dtype {dtype}, not {' or '.join(wanted)}")
    return faults


def check_agreement(model: MlpMixer, info: ModelInfo) -> None:
    """Raise CheckpointError unless a model has the config of the info, and its number of outputs.

    Layers of other kinds, e.g. quantised ones, are accepted.
    """
    ours, theirs = model.config.to_dict(), info.config.to_dict()
    faults = [
        f"the model's {name} is {value} and the info's {theirs[name]}"
        for name, value in ours.items()
        if value != theirs[name]
    ]
    if not faults and info.config.num_classes:
        outputs = model.head.weight.shape[0] if "weight" in model.get("head", {}) else None
        if outputs not in (None, info.config.num_classes):
            faults = [f"the head has {outputs} outputs, its config {info.config.num_classes}"]
    if faults:
        raise CheckpointError(
            f"The model doesn't fit its info: {summarize(faults)}; give the info of this model, or "
            "change its head by with_head."
        )


def check_savable(model: MlpMixer, info: ModelInfo) -> None:
    """Raise CheckpointError unless `load` would accept what `save` would write."""
    check_agreement(model, info)
    header = {
        name: (tuple(value.shape), _dtype_in_file(value.dtype))
        for name, value in _parameters(model).items()
    }
    if faults := _faults(header, _empty(info)):
        raise CheckpointError(
            f"The model can't be saved as a model folder: {summarize(faults)}. Its layers must be "
            "those of its config, and quantised only as its info says."
        )


def _dtype_in_file(dtype: mx.Dtype) -> str:
    known = {value: name for name, value in _DTYPES.items()} | _QUANTIZED
    return known.get(dtype, str(dtype).removeprefix("mlx.core."))


def summarize(faults: list[str], limit: int = 8) -> str:
    """Faults in one sentence, the first few in full."""
    rest = len(faults) - limit
    return "; ".join(faults[:limit]) + (f"; and {rest} more" if rest > 0 else "")


def save(
    folder: str | os.PathLike[str],
    model: MlpMixer,
    info: ModelInfo,
    *,
    force: bool = False,
    beside: bool = False,
) -> None:
    """Write a native folder, whole or not at all; weights keep the dtype they have in `model`.

    An existing folder is replaced only with `force`, and only if it contains nothing but a model;
    an empty one is used.
    With `beside`, other files in it are kept, and the model's two are replaced one after the other.
    Raises CheckpointError, before anything is written if `load` couldn't read the result.
    """
    check_savable(model, info)

    def write_both(to: Path) -> None:
        write(to, model, info)

    put(folder, write_both, (CONFIG_FILE, WEIGHTS_FILE), force=force, beside=beside)


def put(
    folder: str | os.PathLike[str],
    write: Callable[[Path], None],
    names: Sequence[str],
    *,
    force: bool,
    beside: bool,
) -> None:
    """Make a folder of what `write` writes, the files `names`, as `save` does.

    Raises CheckpointError.
    """
    path = Path(folder)
    shared = beside and _is_shared(path, names)
    if not shared:
        _check_replaceable(path, names, force=force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=path) if shared else replacing_folder(path) as new:
            write(Path(new))
            for name in names if shared else ():
                sync(Path(new) / name)
                (Path(new) / name).replace(path / name)
    except (OSError, RuntimeError) as error:  # MLX reports a failed write as RuntimeError
        raise CheckpointError(f"{path} can't be written: {error}.") from error


def _is_shared(path: Path, names: Sequence[str]) -> bool:
    """Whether a folder holds other files."""
    return path.is_dir() and any(entry.name not in names for entry in entries(path))


def write(folder: Path, model: MlpMixer, info: ModelInfo) -> None:
    """Write a model's two files into a folder. Raises OSError, or RuntimeError from MLX."""
    weights = str(folder / WEIGHTS_FILE)
    mx.save_safetensors(weights, _parameters(model), metadata={"format": "mlx"})
    write_config(folder, info)


def write_config(folder: Path, info: ModelInfo) -> None:
    """Write `config.json` into a new folder. Raises OSError."""
    (folder / CONFIG_FILE).write_text(_json(info), encoding="utf-8")


def _json(info: ModelInfo) -> str:
    # ASCII, since names may contain lone surrogates, which UTF-8 can't encode.
    return json.dumps(info.to_dict(), indent=2, allow_nan=False) + "\n"


def check_target(folder: str | os.PathLike[str], *, force: bool = False) -> None:
    """Raise CheckpointError if `save` would refuse `folder`; call it before long work."""
    _check_replaceable(Path(folder), (CONFIG_FILE, WEIGHTS_FILE), force=force)


def _check_replaceable(path: Path, names: Sequence[str], *, force: bool) -> None:
    try:
        _check_target(path, names, force)
    except OSError as error:
        raise CheckpointError(f"{path} can't be written: {error}.") from error


def _check_target(path: Path, names: Sequence[str], force: bool) -> None:
    if not path.is_symlink() and not path.exists():
        return
    if not force and not _is_empty_folder(path):
        raise CheckpointError(
            f"{path} already exists; choose another name, or overwrite it with `force=True`."
        )
    if path.is_symlink() or not path.is_dir():
        raise CheckpointError(f"{path} isn't a folder, so it isn't replaced; choose another name.")
    found = {entry.name for entry in entries(path)}
    if found and (CONFIG_FILE not in found or found - {*names}):
        other = min(found - {*names} or found)
        raise CheckpointError(
            f"{path} contains {other}, which isn't part of a model, so it isn't replaced; choose "
            "another name, or remove that file first."
        )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(entries(path))
