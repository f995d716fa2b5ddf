"""Our model -> the file that google-research/vision_transformer reads."""

from pathlib import Path

import numpy as np

from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.runtime.atomic import replacing_file

from ..names import JAX
from .tensors import foreign_tensors


def write(path: Path, model: MlpMixer) -> None:
    """Write the official code's `.npz`. Raises OSError."""
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **foreign_tensors(model, JAX))  # type: ignore[arg-type]


def notes(info: ModelInfo) -> list[str]:
    """What the official code will do otherwise than the model was trained."""
    if info.config.hidden_act == JAX.hidden_act:
        return []
    return [
        f"the model was trained with {info.config.hidden_act}; the JAX code runs gelu_tanh, which "
        "changes logits by about 1e-3"
    ]
