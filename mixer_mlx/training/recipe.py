"""Recipe: everything that decides a training run, and the only place of its defaults."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixer_mlx.checks import (
    check_choice,
    check_flag,
    check_keys,
    check_number,
    check_pair,
    check_whole,
)
from mixer_mlx.choices import (
    AugmentationName,
    Balance,
    BestBy,
    DType,
    Freeze,
    HeadStart,
    Loss,
    Optimizer,
    Schedule,
    Shuffle,
)
from mixer_mlx.errors import ConfigError
from mixer_mlx.lora import SCALE
from mixer_mlx.runtime.documents import read_toml

_CHOICES = {
    "optimizer": Optimizer,
    "schedule": Schedule,
    "loss": Loss,
    "dtype": DType,
    "freeze": Freeze,
    "head": HeadStart,
    "augmentation": AugmentationName,
    "balance": Balance,
    "shuffle": Shuffle,
    "best_by": BestBy,
}
# Lowest and highest allowed, both included.
_WHOLE = {
    "epochs": (1, 10**6),
    "steps": (1, 10**9),
    "min_steps": (1, 10**9),
    "max_steps": (1, 10**9),
    "batch_size": (1, 10**6),
    "accumulation": (1, 10**6),
    "seed": (0, 2**63 - 1),
    "unfreeze_last": (0, 1024),
    "lora_rank": (1, 4096),
    "patience": (1, 10**6),
    "validate_every": (1, 10**9),
    "save_every": (1, 10**9),
}
_NUMBERS: dict[str, tuple[float, float]] = {
    "lr": (0, 1e3),
    "end_lr": (0, 1e3),
    "weight_decay": (0, 1e3),
    "momentum": (0, 0.99999),
    "clip_norm": (1e-9, 1e9),
    "label_smoothing": (0, 0.999),
    "drop_path": (0, 0.999),
    "dropout": (0, 0.999),
    "ema_decay": (0, 0.9999999),
    "head_bias": (-100, 100),
    "batch_fraction": (1e-6, 1),
    "layer_decay": (1e-3, 1),
    "mixup": (0, 100),
    "cutmix": (0, 100),
    "erasing": (0, 1),
    "cooldown": (0, 10),
    "lora_scale": (0, 1e6),
}
_FLAGS = ("drop_path_rescale", "flip", "gradient_checkpointing")
_OPTIONAL = {
    *("epochs", "steps", "min_steps", "max_steps", "clip_norm", "ema_decay", "patience"),
    *("validate_every", "save_every", "freeze", "lora_rank", "rand_augment", "shuffle"),
}
"""Fields that may be None."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. Raises ConfigError, naming the field, for an invalid value.

    Length: a run lasts `epochs` or `steps`; the other is None. `min_steps` and `max_steps` limit
    the steps that `epochs` gives. A step is one update from `batch_size` images, computed in
    `accumulation` parts to save memory. `batch_fraction` limits the batch to a fraction of the
    training set, see `batch_size_for`. Validation comes after each epoch, or if that is shorter,
    after as many epochs as have `validate_every` steps. `best_by` "top1" takes the weights with the
    highest top-1 for the best; "halfway" those with the lowest loss until the run ends, and then
    one of three: its end, its start, and the weights halfway between (`choice.chosen`), as few
    images can't tell which epoch was best. `patience` ends the run after N validations that are no
    better than an earlier one after training began: at once, or with `cooldown` after that fraction
    of its steps so far, while the rate falls to `end_lr`. The state is saved after validation, and
    every `save_every` steps.

    Optimiser: "muon" is Muon for the kernels in the blocks and AdamW for all other parameters, with
    one `lr`; `momentum` is Muon's or SGD's, `betas` are AdamW's. `weight_decay` applies to kernels
    only (arrays of more than one axis), multiplied by the learning rate as in PyTorch. `warmup` is
    a number of steps (int) or a fraction of them (float below 1); then `schedule` goes from `lr` to
    `end_lr`. `layer_decay` multiplies the rate once per layer below the head. `ema_decay` None
    means no average of the weights. `head` is how fine-tuning starts a new head: as "zeros", or as
    the "ridge" regression on the features of the training images (`prepare.with_ridge_head`).
    `freeze` "backbone" trains only the head, or with `unfreeze_last` N also the last norm and N
    blocks. `lora_rank` R trains the head, and beside the frozen linear maps of the blocks thin
    matrices of rank R, whose product is multiplied by `lora_scale` (`mixer_mlx.lora`). `dtype` is
    that of the forward and backward pass; weights are float32.

    Loss and regularisation: `loss` "sigmoid" is big_vision's, summed over classes; `head_bias` is
    the initial bias of a new head. `drop_path` is the rate of stochastic depth in the last block,
    and `drop_path_rescale` divides kept branches by their probability; `dropout` is applied to the
    pre-logits. `balance` compensates for classes with few images: "loss" weights the loss,
    "sampling" draws their images more often.

    Augmentation: "crop" is a random resized crop, "pad" a padded crop, "auto" chooses by the image
    size; `flip` mirrors images at random. `rand_augment` is (layers, magnitude) or None, `erasing`
    the probability of random erasing. `shuffle` makes the model see all images in a fixed order of
    patches or pixels, in every later use, too (`MixerConfig.shuffle`). `mixup`
    and `cutmix` are the p of Beta(p, p), 0 for none.
    """

    epochs: int | None = None
    steps: int | None = None
    min_steps: int | None = None
    max_steps: int | None = None
    batch_size: int = 32
    batch_fraction: float = 1.0
    accumulation: int = 1
    optimizer: Optimizer = "adamw"
    lr: float = 1e-3
    end_lr: float = 0.0
    warmup: int | float = 0.1
    schedule: Schedule = "cosine"
    layer_decay: float = 1.0
    weight_decay: float = 0.0
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = 1.0
    loss: Loss = "softmax"
    label_smoothing: float = 0.0
    head_bias: float = 0.0
    drop_path: float = 0.0
    drop_path_rescale: bool = False
    dropout: float = 0.0
    ema_decay: float | None = None
    dtype: DType = "float32"
    gradient_checkpointing: bool = False
    head: HeadStart = "zeros"
    freeze: Freeze | None = None
    unfreeze_last: int = 0
    lora_rank: int | None = None
    lora_scale: float = SCALE
    augmentation: AugmentationName = "auto"
    flip: bool = True
    rand_augment: tuple[int, int] | None = None
    erasing: float = 0.0
    shuffle: Shuffle | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    balance: Balance = "none"
    best_by: BestBy = "top1"
    patience: int | None = None
    cooldown: float = 0.0
    validate_every: int | None = None
    save_every: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        values = {k: v for k, v in vars(self).items() if v is not None or k not in _OPTIONAL}
        for name in values.keys() & _CHOICES.keys():
            check_choice(name, values[name], _CHOICES[name])
        for name in values.keys() & _WHOLE.keys():
            check_whole(name, values[name], *_WHOLE[name])
        for name in values.keys() & _NUMBERS.keys():
            check_number(name, values[name], *_NUMBERS[name])
        for name in _FLAGS:
            check_flag(name, values[name])
        if isinstance(self.warmup, int):
            check_whole("warmup", self.warmup, 0, 10**9)
        else:
            check_number("warmup", self.warmup, 0, 0.999)
        self._check_pairs()
        if (self.epochs is None) == (self.steps is None):
            raise ConfigError("A recipe has either epochs or steps; give one of them.")
        if self.steps and (self.min_steps or self.max_steps):
            raise ConfigError("min_steps and max_steps limit epochs; omit them, or omit steps.")
        if self.min_steps and self.max_steps and self.min_steps > self.max_steps:
            raise ConfigError("min_steps is above max_steps; raise one, or lower the other.")
        if self.unfreeze_last and not self.freeze:
            raise ConfigError('unfreeze_last needs freeze = "backbone"; set it, or omit both.')
        if self.lora_rank and (self.freeze or self.optimizer == "muon"):
            raise ConfigError(
                "lora_rank freezes the backbone itself and needs adamw or sgd; omit freeze, and "
                "choose one of these."
            )

    def _check_pairs(self) -> None:
        check_pair("betas", self.betas)
        for beta in self.betas:
            check_number("betas", beta, 0, 0.9999999)
        object.__setattr__(self, "betas", tuple(self.betas))
        if self.rand_augment is not None:
            check_pair("rand_augment", self.rand_augment)
            layers, magnitude = self.rand_augment
            check_whole("rand_augment's layers", layers, 1, 16)
            check_whole("rand_augment's magnitude", magnitude, 0, 30)
            object.__setattr__(self, "rand_augment", (layers, magnitude))

    def batch_size_for(self, examples: int) -> int:
        """The batch size for a training set of `examples` images."""
        return max(1, min(self.batch_size, int(examples * self.batch_fraction)))

    def total_steps(self, steps_per_epoch: int) -> int:
        """Updates in a complete run."""
        if self.steps:
            return self.steps
        steps = max(self.min_steps or 1, (self.epochs or 1) * steps_per_epoch)
        return min(self.max_steps or steps, steps)

    def replace(self, **changes: object) -> "Recipe":
        """A copy with other values, checked again; `epochs` replaces `steps`, and vice versa.

        Either also replaces the limits of the steps. False means None for a field that may be None.
        """
        for name in _OPTIONAL:
            if changes.get(name) is False:
                changes[name] = None
        for one, other in (("epochs", "steps"), ("steps", "epochs")):
            if changes.get(one) is not None:
                changes = {other: None, "min_steps": None, "max_steps": None, **changes}
        check_keys("recipe", changes, Recipe, all_=False)
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        values = dataclasses.asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Recipe":
        """The inverse of `to_dict`; missing fields have their defaults. Raises ConfigError."""
        check_keys("recipe", values, cls, all_=False)
        return cls(**values)  # type: ignore[arg-type]

    def with_toml(self, path: str | os.PathLike[str]) -> "Recipe":
        """A copy with the values of a TOML file, whose keys are this class's fields.

        Raises ConfigError. (TOML has no null: `clip_norm = false` means None.)
        """
        try:
            values: dict[str, Any] = read_toml(Path(path))
        except ConfigError as error:
            raise ConfigError(f"{path} isn't a readable TOML file: {error}") from error
        try:
            return self.replace(**values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
