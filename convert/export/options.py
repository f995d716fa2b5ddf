"""What `export` takes and returns, without the formats, which loading a model doesn't need."""

from dataclasses import dataclass
from pathlib import Path

from mixer_mlx.choices import CoreMLTarget, ExportInput, ExportPrecision, ExportWeights
from mixer_mlx.model_info import ModelInfo


@dataclass(frozen=True)
class ExportOptions:
    """How a file is written; each format takes some of these.

    `input` "image": the file takes uint8 pixels and normalises them; "array": float32 that the
    caller has normalised. `weights`: what matrices are stored as. `softmax`: the file gives
    probabilities in place of logits. `compute_precision` and `minimum_target` (the oldest system)
    are those of a Core ML package. `runtime` is the folder of the npm package onnxruntime-web,
    which a page contains (None: `node_modules/onnxruntime-web`).
    """

    input: ExportInput = "image"
    weights: ExportWeights = "float32"
    softmax: bool = False
    compute_precision: ExportPrecision = "float16"
    minimum_target: CoreMLTarget = "iOS15"
    runtime: Path | None = None


@dataclass(frozen=True)
class Exported:
    """What was exported, and what the user should know of the result, a phrase each."""

    info: ModelInfo
    notes: tuple[str, ...] = ()
