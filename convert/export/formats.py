"""Our model -> the files that timm and the official JAX code read: the tables backwards."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from safetensors.numpy import save_file

from mixer_mlx import checkpoint
from mixer_mlx.checkpoint import ModelInfo
from mixer_mlx.config import MixerConfig
from mixer_mlx.errors import CheckpointError, ConfigError
from mixer_mlx.model import MlpMixer
from mixer_mlx.runtime.atomic import replacing_file, replacing_folder

from ..names import JAX, TIMM, Layout

FORMATS = ("timm", "jax")


def export(
    model: MlpMixer,
    info: ModelInfo,
    out: str | os.PathLike[str],
    *,
    format: str,
    force: bool = False,
) -> None:
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
            _write_timm(path, model, info)
        else:
            _write_jax(path, model)
    except OSError as error:
        raise CheckpointError(f"{path} can't be written: {error}.") from error


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


def foreign_tensors(model: MlpMixer, layout: Layout) -> dict[str, np.ndarray]:
    """Every parameter under its foreign name, float32, axes in the foreign order."""
    ours: Mapping[str, mx.array] = dict(tree_flatten(model.parameters()))
    config = model.config
    names = layout.names(config.num_blocks, head=config.num_classes > 0)
    tensors = {}
    for name, (foreign, axes) in names.items():
        value = np.array(ours[name].astype(mx.float32))
        order = np.argsort(axes) if axes else range(value.ndim)
        tensors[foreign] = np.ascontiguousarray(value.transpose(order))
    return tensors


def _write_timm(path: Path, model: MlpMixer, info: ModelInfo) -> None:
    with replacing_folder(path) as temporary:
        save_file(
            foreign_tensors(model, TIMM),
            temporary / checkpoint.WEIGHTS_FILE,
            metadata={"format": "pt"},
        )
        text = json.dumps(timm_config(info), indent=2, allow_nan=False)
        (temporary / checkpoint.CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def _write_jax(path: Path, model: MlpMixer) -> None:
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **foreign_tensors(model, JAX))  # type: ignore[arg-type]


def timm_config(info: ModelInfo) -> dict[str, object]:
    """The content of timm's `config.json`.

    timm's named architectures are for 224 x 224 images with three channels; for other models,
    `model_args` has the sizes for timm's class `MlpMixer`. timm runs the erf form of GELU
    whatever the weights were trained with; the one they were trained with is under `hidden_act`,
    which timm ignores.
    """
    config, preprocess = info.config, info.preprocess
    height, width = config.image_size
    return {
        "architecture": _architecture(config) or "mlp_mixer_custom",
        "num_classes": config.num_classes,
        "num_features": config.hidden_dim,
        "global_pool": "avg",
        "hidden_act": config.hidden_act,
        "model_args": {} if _architecture(config) else _model_args(config),
        **({"label_names": list(info.labels)} if info.labels else {}),
        "pretrained_cfg": {
            "input_size": [config.in_channels, height, width],
            "fixed_input_size": True,
            "interpolation": preprocess.interpolation,
            "crop_pct": preprocess.crop_pct,
            "crop_mode": "center" if preprocess.resize_mode == "shorter" else "squash",
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "num_classes": config.num_classes,
            "pool_size": None,
            "first_conv": "stem.proj",
            "classifier": "head",
        },
    }


def _architecture(config: MixerConfig) -> str | None:
    if not config.variant_name or config.variant_name == "S/8":  # timm has no S/8
        return None
    if config.image_size != (224, 224) or config.in_channels != 3:
        return None
    return f"mixer_{config.variant_name.replace('/', '').lower()}_224"


def _model_args(config: MixerConfig) -> dict[str, object]:
    return {
        "img_size": list(config.image_size),
        "patch_size": config.patch_size,
        "in_chans": config.in_channels,
        "num_blocks": config.num_blocks,
        "embed_dim": config.hidden_dim,
        "mlp_ratio": [
            mlp_ratio(config.tokens_mlp_dim, config.hidden_dim),
            mlp_ratio(config.channels_mlp_dim, config.hidden_dim),
        ],
    }


def mlp_ratio(width: int, dim: int) -> float:
    """The number from which timm computes `width`, as int(ratio * dim)."""
    ratio = width / dim
    return ratio if int(ratio * dim) == width else math.nextafter(ratio, math.inf)
