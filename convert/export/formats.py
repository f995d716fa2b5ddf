"""Our model -> files for other libraries, by the name of the format."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from mixer_mlx import checkpoint
from mixer_mlx.checkpoint import ModelInfo
from mixer_mlx.choices import ExportFormat
from mixer_mlx.errors import CheckpointError, ConfigError
from mixer_mlx.model import MlpMixer

from . import jax, timm

FORMATS = get_args(ExportFormat)


@dataclass(frozen=True)
class Exported:
    """What was exported, and what the user should know of the result, a phrase each."""

    info: ModelInfo
    notes: tuple[str, ...] = ()


def export(
    model: MlpMixer,
    info: ModelInfo,
    out: str | os.PathLike[str],
    *,
    format: str,
    force: bool = False,
) -> Exported:
    """Write a model for other people's code, in float32.

    "timm": the folder `out`, with `model.safetensors` and `config.json` as a timm repository on the
    Hub has them. "jax": the file `out`, an `.npz` as google-research/vision_transformer reads it.
    Raises ConfigError for another format, CheckpointError if `out` exists or can't be written.
    """
    check_target(out, format, force=force)
    path = Path(out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if format == "timm":
            timm.write(path, model, info)
            notes = timm.notes(info)
        else:
            jax.write(path, model)
            notes = jax.notes(info)
    except OSError as error:
        raise CheckpointError(f"{path} can't be written: {error}.") from error
    return Exported(info, tuple(notes))


def check_target(out: str | os.PathLike[str], format: str, *, force: bool) -> None:
    """Raise what `export` would raise about `out` and `format`, before the work starts."""
    if format not in FORMATS:
        raise ConfigError(f"Unknown format {format!r}; choose one of {', '.join(FORMATS)}.")
    path = Path(out)
    if format == "jax" and path.suffix.lower() != ".npz":
        raise CheckpointError(f"JAX weights are a .npz file; call it {path.with_suffix('.npz')}.")
    if format == "timm" or not path.exists():
        checkpoint.check_target(path, force=force)
    elif path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the name of a file, such as model.npz.")
    elif not force:
        raise CheckpointError(
            f"{path} already exists; choose another name, or overwrite it with --force."
        )
