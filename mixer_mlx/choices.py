"""Every list of choices, once. Imports nothing heavy: the command line shows them in its help.

As `typing.Literal`, which type checkers and Typer take; `names(DType)` gives the words.
"""

from typing import Literal, get_args

DType = Literal["float32", "float16", "bfloat16"]
Device = Literal["cpu", "gpu"]

HiddenAct = Literal["gelu", "gelu_tanh"]
"""GELU by erf, what timm runs, and by tanh, what Flax runs."""

ResizeMode = Literal["shorter", "squash"]
Interpolation = Literal["bicubic", "bilinear"]

Optimizer = Literal["adamw", "muon", "sgd"]
Schedule = Literal["linear", "cosine", "constant"]
Loss = Literal["softmax", "sigmoid"]
Augmentation = Literal["auto", "crop", "pad", "none"]
Balance = Literal["none", "loss", "sampling"]
Freeze = Literal["backbone"]
Tracker = Literal["tensorboard", "wandb", "trackio"]

Format = Literal["table", "json", "csv"]
ExportFormat = Literal["timm", "jax"]

LabelList = Literal["imagenet1k", "imagenet21k_goog", "imagenet21k_miil"]

DEFAULT_MODEL = "mixer_b16_224.miil_in21k_ft_in1k"
"""The most accurate published Mixer for ImageNet-1k, by timm's measurement."""
BUILT_IN = "cifar10"
"""The model that ships in the package."""


def names(choice: object) -> tuple[str, ...]:
    """The words of one of the choices above."""
    return get_args(choice)
