"""Our model -> a folder as a timm repository on the Hub, which transformers reads, too.

Tried with timm 1.0.31 and transformers 5.24 by tests/reference/make_timm_configs.py, which made
tests/golden/timm_configs.json.
"""

import json
import math
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import save_file

from mixer_mlx import checkpoint
from mixer_mlx.catalog import TIMM_NAMES
from mixer_mlx.config import MixerConfig
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.runtime.atomic import replacing_folder

from ..names import TIMM_LAYOUTS
from .tensors import foreign_tensors

UNNAMED = "mlp_mixer_custom"
"""The `architecture` of a model that timm has no name for; `create_model` refuses it."""

_ARGS = {
    "mlp_mixer": "",
    "resmlp": "block_layer=ResBlock, norm_layer=Affine, ",
    "gmlp": "block_layer=SpatialGatingBlock, mlp_layer=GatedMlp, ",
    "gmixer": "mlp_layer=GluMlp, act_layer=torch.nn.SiLU, ",
}
"""What timm's class `MlpMixer` needs besides `model_args` for each family."""
_MLP_RATIO = (0.5, 4.0)  # timm's default


def write(path: Path, model: MlpMixer, info: ModelInfo) -> None:
    """Write the folder. Raises OSError."""
    with replacing_folder(path) as temporary:
        write_files(temporary, model, info)


def write_files(folder: Path, model: MlpMixer, info: ModelInfo) -> None:
    """Write `model.safetensors` and `config.json` into a folder. Raises OSError."""
    tensors = foreign_tensors(model, TIMM_LAYOUTS[info.config.model_type])
    try:
        save_file(tensors, folder / checkpoint.WEIGHTS_FILE, metadata={"format": "pt"})
    except SafetensorError as error:  # e.g. for a full disk
        raise OSError(str(error)) from error
    text = json.dumps(timm_config(info), indent=2, allow_nan=False)
    (folder / checkpoint.CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def timm_config(info: ModelInfo) -> dict[str, object]:
    """The content of timm's `config.json`.

    `architecture` is the name of timm's model with the same patches, blocks and width, and
    `model_args` has what else differs from that model. If timm has no such model, `architecture`
    is UNNAMED and `model_args` has all arguments of timm's class `MlpMixer`. The form of GELU that
    the weights were trained with is in `hidden_act`, which timm ignores.
    """
    config, preprocess = info.config, info.preprocess
    height, width = config.image_size
    name = architecture(config)
    return {
        "architecture": name or UNNAMED,
        "num_classes": config.num_classes,
        "num_features": config.hidden_dim,
        "global_pool": "avg",
        "hidden_act": config.hidden_act,
        "model_args": _changed_args(config) if name else model_args(config),
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


def architecture(config: MixerConfig) -> str | None:
    """timm's name for a model with these patches, blocks and width, or None.

    Only these are fixed by timm's names: its functions take `img_size`, `in_chans` and, for Mixers,
    `mlp_ratio`, but raise TypeError for `patch_size`.
    """
    fixed = ["model_type", "patch_size", "num_blocks", "hidden_dim"]
    if config.model_type != "mlp_mixer":
        fixed += ["tokens_mlp_dim", "channels_mlp_dim"]
    for name, theirs in TIMM_NAMES.items():
        sizes = MixerConfig.variant(name)
        if all(getattr(config, field) == getattr(sizes, field) for field in fixed):
            return theirs
    return None


def notes(info: ModelInfo) -> list[str]:
    """What timm can't load by itself, or will compute otherwise."""
    config, found = info.config, []
    if architecture(config) is None:
        found.append(
            "timm has no name for a model of these sizes, so timm.create_model can't load this "
            f"folder; build timm.models.mlp_mixer.MlpMixer({_ARGS[config.model_type]}"
            "num_classes=..., **model_args) with the model_args in its config.json"
        )
    usual = TIMM_LAYOUTS[config.model_type].hidden_act
    if config.hidden_act != usual:
        gelus = {config.hidden_act, usual} == {"gelu", "gelu_tanh"}
        effect = ", which changes logits by about 1e-3" if gelus else ""
        found.append(f"the model was trained with {config.hidden_act}; timm runs {usual}{effect}")
    if config.layer_norm_eps != 1e-6 and config.model_type != "resmlp":
        found.append(
            f"the model was trained with layer_norm_eps {config.layer_norm_eps:g}; timm runs 1e-06"
        )
    return found


def model_args(config: MixerConfig) -> dict[str, object]:
    """The arguments, but `num_classes`, with which timm's class `MlpMixer` has these sizes."""
    tokens = mlp_ratio(config.tokens_mlp_dim, config.hidden_dim)
    channels = mlp_ratio(config.channels_mlp_dim, config.hidden_dim)
    return {
        "img_size": list(config.image_size),
        "patch_size": config.patch_size,
        "in_chans": config.in_channels,
        "num_blocks": config.num_blocks,
        "embed_dim": config.hidden_dim,
        "mlp_ratio": [tokens, channels] if config.tokens_mlp_dim else channels,
    }


def _changed_args(config: MixerConfig) -> dict[str, object]:
    """What differs from timm's named model."""
    usual: dict[str, object] = {"img_size": [224, 224], "in_chans": 3}
    if config.model_type == "mlp_mixer":
        usual["mlp_ratio"] = list(_MLP_RATIO)
    args = model_args(config)
    return {key: args[key] for key, value in usual.items() if args[key] != value}


def mlp_ratio(width: int, dim: int) -> float:
    """The number from which timm computes `width`, as int(ratio * dim)."""
    ratio = width / dim
    return ratio if int(ratio * dim) == width else math.nextafter(ratio, math.inf)
