"""Our model -> files for other libraries, by the name of the format."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mixer_mlx import checkpoint
from mixer_mlx.choices import ExportFormat
from mixer_mlx.errors import CheckpointError, ConfigError
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.quantization import dequantize

from . import coreai, coreml, graph, jax, onnx, timm, webpage
from .options import Exported, ExportOptions


@dataclass(frozen=True)
class Format:
    """A kind of file or, if `folder`, of folder; `write` raises OSError."""

    suffix: str | None
    write: Callable[[Path, MlpMixer, ModelInfo, ExportOptions], None]
    takes: tuple[str, ...] = ()  # fields of ExportOptions
    notes: Callable[[ModelInfo], list[str]] = lambda info: []
    require: Callable[[], None] = lambda: None
    folder: bool = False
    check_model: Callable[[ModelInfo, ExportOptions], None] = lambda info, options: None


def _check_jax(info: ModelInfo, options: ExportOptions) -> None:
    if info.config.model_type != "mlp_mixer":
        raise ConfigError(
            f"The official JAX code has only MLP-Mixer, and this is a {info.config.title}; export "
            "it to timm."
        )


def _check_softmax(info: ModelInfo, options: ExportOptions) -> None:
    if options.softmax and not info.config.num_classes:
        raise ConfigError(
            "The model has no classes, so it has no probabilities; leave out softmax."
        )


def _check_html(info: ModelInfo, options: ExportOptions) -> None:
    if not info.config.num_classes or info.config.in_channels not in (1, 3):
        raise ConfigError("A page needs a model with classes, for images in colour or grey.")
    webpage.find_runtime(options.runtime)


def _check_coreml(info: ModelInfo, options: ExportOptions) -> None:
    channels = info.config.in_channels
    if options.input == "image" and channels not in (1, 3):
        raise ConfigError(
            f"The model expects {channels} channels and Core ML's images have 1 or 3; "
            'use the input "array".'
        )


def _write_onnx(path: Path, model: MlpMixer, info: ModelInfo, options: ExportOptions) -> None:
    network = graph.describe(model, info, input=options.input, softmax=options.softmax)
    onnx.write(path, network, options.weights)


def _write_coreml(path: Path, model: MlpMixer, info: ModelInfo, options: ExportOptions) -> None:
    network = graph.describe(
        model,
        info,
        input=options.input,
        pixel_scale=coreml.PIXEL_SCALE,
        softmax=info.config.num_classes > 0,
    )
    coreml.write(path, network, options.compute_precision, options.minimum_target)


def _calibrated(model: MlpMixer, info: ModelInfo) -> MlpMixer:
    """A model whose own logits are those that the calibration gives: others know no temperature."""
    if info.temperature == 1:
        return model
    made = MlpMixer(model.config)
    made.update(model.parameters())
    made.head.weight = model.head.weight / info.temperature
    made.head.bias = model.head.bias / info.temperature
    return made


def _write_coreai(path: Path, model: MlpMixer, info: ModelInfo, options: ExportOptions) -> None:
    network = graph.describe(model, info, input=options.input, softmax=options.softmax)
    coreai.write(path, network)


def _write_html(path: Path, model: MlpMixer, info: ModelInfo, options: ExportOptions) -> None:
    network = graph.describe(model, info, input="image", softmax=True)
    webpage.write(path, network, options.weights, options.runtime)


FORMATS: dict[ExportFormat, Format] = {
    "timm": Format(None, lambda p, m, i, _: timm.write(p, m, i), notes=timm.notes, folder=True),
    "jax": Format(
        ".npz", lambda p, m, _, __: jax.write(p, m), notes=jax.notes, check_model=_check_jax
    ),
    "onnx": Format(
        ".onnx",
        _write_onnx,
        ("input", "weights", "softmax"),
        require=onnx.require,
        check_model=_check_softmax,
    ),
    "coreml": Format(
        ".mlpackage",
        _write_coreml,
        ("input", "compute_precision", "minimum_target"),
        require=coreml.require,
        folder=True,
        check_model=_check_coreml,
    ),
    "coreai": Format(
        ".aimodel",
        _write_coreai,
        ("input", "softmax"),
        require=coreai.require,
        folder=True,
        check_model=_check_softmax,
    ),
    "html": Format(
        ".html",
        _write_html,
        ("weights", "runtime"),
        require=onnx.require,
        check_model=_check_html,
    ),
}


def export(
    model: MlpMixer,
    info: ModelInfo,
    out: str | os.PathLike[str],
    *,
    format: ExportFormat,
    options: ExportOptions = ExportOptions(),  # noqa: B008  # frozen
    force: bool = False,
) -> Exported:
    """Write a model for other people's code, from float32 weights.

    "timm": the folder `out`, with `model.safetensors` and `config.json` as a timm repository on the
    Hub has them. "jax": the file `out`, an `.npz` as google-research/vision_transformer reads it.
    "onnx": the file `out`, for ONNX Runtime and others. "coreml": the package `out`, for Xcode.
    "coreai": the asset `out`, in Apple's newer format; experimental.
    "html": the file `out`, a page that classifies images in a browser, without a network.
    Raises ConfigError for another format, an option that it doesn't take or a model that it
    can't express, CheckpointError if `out` exists or can't be written.
    """
    check(out, format, options, force=force)
    path, kind = Path(out), FORMATS[format]
    if info.config.shuffle:
        raise ConfigError(
            "The model sees images in a shuffled order, which no other format has; export one "
            "that was trained without `shuffle`."
        )
    kind.check_model(info, options)
    notes, model = _notes(model, kind.notes(info)), dequantize(model)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind.write(path, _calibrated(model, info), info, options)
    except OSError as error:
        raise CheckpointError(f"{path} can't be written: {error}.") from error
    return Exported(info, notes)


def _notes(model: MlpMixer, notes: list[str]) -> tuple[str, ...]:
    if model.quantized:
        notes = ["the quantised weights were written as the floats that they stand for", *notes]
    return tuple(notes)


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
            f"The format {format} ends in {kind.suffix}; call it {path.with_suffix(kind.suffix)}."
        )
    if kind.suffix is None:
        checkpoint.check_target(path, force=force)
    elif kind.folder:
        _check_package(path, force)
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


def _check_package(path: Path, force: bool) -> None:
    """Raise unless `path` is free, or with `force` a package of the same kind."""
    if not path.is_symlink() and not path.exists():
        return
    if force and (not path.is_dir() or path.is_symlink() or not _is_package(path)):
        raise CheckpointError(f"{path} isn't a package, so it isn't replaced; choose another name.")
    if not force:
        raise CheckpointError(
            f"{path} already exists; choose another name, or overwrite it with `force=True`."
        )


def _is_package(path: Path) -> bool:
    return any((path / name).is_file() for name in ("Manifest.json", coreai.PROGRAM_FILE))


def _check_file(path: Path, force: bool) -> None:
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the name of a file.")
    if not force and (path.exists() or path.is_symlink()):
        raise CheckpointError(
            f"{path} already exists; choose another name, or overwrite it with `force=True`."
        )
