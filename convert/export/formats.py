"""Our model -> files for other libraries, by the name of the format."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mixer_mlx import checkpoint
from mixer_mlx.checkpoint import ModelInfo
from mixer_mlx.choices import ExportFormat, ExportInput, ExportWeights
from mixer_mlx.errors import CheckpointError, ConfigError
from mixer_mlx.model import MlpMixer

from . import graph, jax, onnx, timm


@dataclass(frozen=True)
class ExportOptions:
    """How a file is written; each format takes some of these.

    `input` "image": the file takes uint8 pixels and normalises them; "array": float32 that the
    caller has normalised. `weights`: what matrices are stored as. `softmax`: the file gives
    probabilities in place of logits.
    """

    input: ExportInput = "image"
    weights: ExportWeights = "float32"
    softmax: bool = False


@dataclass(frozen=True)
class Exported:
    """What was exported, and what the user should know of the result, a phrase each."""

    info: ModelInfo
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A kind of file: `write` raises OSError; `suffix` None means a folder."""

    suffix: str | None
    write: Callable[[Path, MlpMixer, ModelInfo, ExportOptions], None]
    takes: tuple[str, ...] = ()  # fields of ExportOptions
    notes: Callable[[ModelInfo], list[str]] = lambda info: []
    require: Callable[[], None] = lambda: None


def _write_onnx(path: Path, model: MlpMixer, info: ModelInfo, options: ExportOptions) -> None:
    network = graph.describe(model, info, input=options.input, softmax=options.softmax)
    onnx.write(path, network, options.weights)


FORMATS: dict[ExportFormat, Format] = {
    "timm": Format(None, lambda p, m, i, _: timm.write(p, m, i), notes=timm.notes),
    "jax": Format(".npz", lambda p, m, _, __: jax.write(p, m), notes=jax.notes),
    "onnx": Format(".onnx", _write_onnx, ("input", "weights", "softmax"), require=onnx.require),
}


def export(
    model: MlpMixer,
    info: ModelInfo,
    out: str | os.PathLike[str],
    *,
    format: ExportFormat,
    options: ExportOptions = ExportOptions(),  # frozen
    force: bool = False,
) -> Exported:
    """Write a model for other people's code, from float32 weights.

    "timm": the folder `out`, with `model.safetensors` and `config.json` as a timm repository on the
    Hub has them. "jax": the file `out`, an `.npz` as google-research/vision_transformer reads it.
    "onnx": the file `out`, for ONNX Runtime and others. Raises ConfigError for another format, an
    option that it doesn't take, or a model that it doesn't have, CheckpointError if `out` exists or
    can't be written.
    """
    check(out, format, options, force=force)
    if options.softmax and not info.config.num_classes:
        raise ConfigError(
            "The model has no classes, so it has no probabilities; leave out softmax."
        )
    if format == "jax" and info.config.model_type != "mlp_mixer":
        raise ConfigError(
            f"The official JAX code has only MLP-Mixer, and this is a {info.config.title}; export "
            "it to timm."
        )
    path, kind = Path(out), FORMATS[format]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind.write(path, model, info, options)
    except OSError as error:
        raise CheckpointError(f"{path} can't be written: {error}.") from error
    return Exported(info, tuple(kind.notes(info)))


def check(
    out: str | os.PathLike[str], format: ExportFormat, options: ExportOptions, *, force: bool
) -> None:
    """Raise what `export` would raise, before the work starts."""
    if format not in FORMATS:
        raise ConfigError(f"Unknown format {format!r}; choose one of {', '.join(FORMATS)}.")
    check_options(format, options)
    path, kind = Path(out), FORMATS[format]
    if kind.suffix and path.suffix.lower() != kind.suffix:
        raise CheckpointError(
            f"The format {format} is a {kind.suffix} file; call it {path.with_suffix(kind.suffix)}."
        )
    if kind.suffix is None:
        checkpoint.check_target(path, force=force)
    else:
        _check_file(path, force)
        if format == "onnx":
            _check_file(onnx.data_file(path), force)
    kind.require()


def check_options(format: ExportFormat, options: ExportOptions) -> None:
    """Raise ConfigError for an option that the format doesn't take."""
    for field in dataclasses.fields(options):
        if getattr(options, field.name) != field.default and (
            field.name not in FORMATS[format].takes
        ):
            takers = [name for name, kind in FORMATS.items() if field.name in kind.takes]
            raise ConfigError(
                f"{format} doesn't take the option {field.name.replace('_', '-')}, only "
                f"{' and '.join(takers)}; leave it out."
            )


def _check_file(path: Path, force: bool) -> None:
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the name of a file.")
    if not force and (path.exists() or path.is_symlink()):
        raise CheckpointError(
            f"{path} already exists; choose another name, or overwrite it with --force."
        )
