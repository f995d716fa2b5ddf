"""All lists of choices, as `typing.Literal`; `typing.get_args` gives the values.

Imports nothing heavy: the command line shows them in its help.
"""

from typing import Literal

DType = Literal["float32", "float16", "bfloat16"]
Device = Literal["cpu", "gpu"]

ModelType = Literal["mlp_mixer", "resmlp", "gmlp", "gmixer"]
"""MLP-Mixer, and its siblings, which differ in the block."""
MixerVariant = Literal["S/32", "S/16", "S/8", "B/32", "B/16", "L/32", "L/16", "H/14"]
ResMlpVariant = Literal["ResMLP-S12", "ResMLP-S24", "ResMLP-S36", "ResMLP-B24/8"]
GatedVariant = Literal["gMLP-Ti/16", "gMLP-S/16", "gMLP-B/16", "gMixer-12", "gMixer-24"]
Variant = Literal[MixerVariant, ResMlpVariant, GatedVariant]
"""The paper's Table 1, S/8, which is a published checkpoint of the authors, and the siblings'."""
HiddenAct = Literal["gelu", "gelu_tanh", "silu"]
"""GELU by erf, as in timm, or by tanh, as in Flax; gMixer has SiLU."""

ResizeMode = Literal["shorter", "squash"]
Interpolation = Literal["bicubic", "bilinear"]

ExplainMethod = Literal["rise", "occlusion", "gradient"]
"""How the patches of an image are weighed: random masks, hidden squares, integrated gradients."""
Pool = Literal["mean", "none"]
"""Features of an image: the mean over its tokens, or one vector per token."""

Optimizer = Literal["adamw", "muon", "sgd"]
Schedule = Literal["linear", "cosine", "constant"]
Loss = Literal["softmax", "sigmoid"]
AugmentationName = Literal["auto", "crop", "pad", "none"]
Balance = Literal["none", "loss", "sampling"]
Freeze = Literal["backbone"]
HeadStart = Literal["zeros", "ridge"]
"""How a new head starts: as zeros, or as the ridge regression on the frozen features."""
Shuffle = Literal["patches", "pixels"]
"""A fixed order of pixels: patches and the pixels inside them permuted, or all pixels."""
BestBy = Literal["top1", "halfway"]
"""Which weights are a run's best: by top-1, then loss; or one of three at its end."""
WeightsName = Literal["raw", "ema", "halfway", "start"]
"""A run's weights, their exponential moving average, that halfway to the start, and the start."""
RecipeName = Literal[
    "quick",
    "paper-finetune",
    "paper-imagenet",
    "paper-imagenet21k",
    "cifar",
    "cifar-muon",
]
TrackerName = Literal["tensorboard", "wandb", "trackio"]

QuantizationMode = Literal["affine", "mxfp4", "mxfp8"]
"""How quantised weights are stored: as integers, or in a Microscaling format."""

Format = Literal["table", "json", "csv"]
ExportFormat = Literal["timm", "jax", "onnx", "coreml", "coreai", "html"]
ExportInput = Literal["image", "array"]
"""What an exported network takes: pixels as they are, or normalised by the caller."""
ExportWeights = Literal["float32", "float16", "int8"]
"""What the matrices of an exported network are stored as."""
ExportPrecision = Literal["float16", "float32"]
"""What a Core ML program computes in."""
CoreMLTarget = Literal["iOS15", "iOS16", "iOS17", "iOS18", "iOS26"]
"""The oldest system that opens a Core ML package; macOS 12, 13, 14, 15 and 26 are as old."""

LabelList = Literal["imagenet1k", "imagenet21k_goog", "imagenet21k_miil"]

DEFAULT_MODEL = "mixer_b16_224.miil_in21k_ft_in1k"
"""The most accurate published Mixer for ImageNet-1k, by timm's measurement."""
BUILT_IN = "cifar10"
"""The model that ships in the package."""
