"""All lists of choices, as `typing.Literal`; `typing.get_args` gives the values.

Imports nothing heavy: the command line shows them in its help.
"""

from typing import Literal

DType = Literal["float32", "float16", "bfloat16"]
Device = Literal["cpu", "gpu"]

Variant = Literal["S/32", "S/16", "S/8", "B/32", "B/16", "L/32", "L/16", "H/14"]
"""The paper's Table 1, and S/8, which is a published checkpoint of the authors."""
HiddenAct = Literal["gelu", "gelu_tanh"]
"""GELU by erf, as in timm, or by tanh, as in Flax."""

ResizeMode = Literal["shorter", "squash"]
Interpolation = Literal["bicubic", "bilinear"]

Pool = Literal["mean", "none"]
"""Features of an image: the mean over its tokens, or one vector per token."""

Optimizer = Literal["adamw", "muon", "sgd"]
Schedule = Literal["linear", "cosine", "constant"]
Loss = Literal["softmax", "sigmoid"]
AugmentationName = Literal["auto", "crop", "pad", "none"]
Balance = Literal["none", "loss", "sampling"]
Freeze = Literal["backbone"]
WeightsName = Literal["raw", "ema"]
"""A run's weights, and their exponential moving average."""
RecipeName = Literal[
    "quick",
    "paper-finetune",
    "paper-imagenet",
    "paper-imagenet21k",
    "cifar",
    "cifar-muon",
]
TrackerName = Literal["tensorboard", "wandb", "trackio"]

Format = Literal["table", "json", "csv"]
ExportFormat = Literal["timm", "jax"]

LabelList = Literal["imagenet1k", "imagenet21k_goog", "imagenet21k_miil"]

DEFAULT_MODEL = "mixer_b16_224.miil_in21k_ft_in1k"
"""The most accurate published Mixer for ImageNet-1k, by timm's measurement."""
BUILT_IN = "cifar10"
"""The model that ships in the package."""
