"""Recipe: everything that decides a training run, and the one home of its defaults."""

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mixer_mlx.errors import ConfigError
from mixer_mlx.runtime.backend import DTYPES

_CHOICES = {
    "optimizer": ("adamw", "muon", "sgd"),
    "schedule": ("linear", "cosine", "constant"),
    "loss": ("softmax", "sigmoid"),
    "dtype": DTYPES,
    "freeze": (None, "backbone"),
    "augmentation": ("auto", "crop", "pad", "none"),
    "balance": ("none", "loss", "sampling"),
}
# Lowest and highest allowed, both included; None in front: the field may be None.
_WHOLE: dict[str, tuple[int, float]] = {
    "epochs": (1, 1e6),
    "steps": (1, 1e9),
    "batch_size": (1, 1e6),
    "accumulation": (1, 1e6),
    "seed": (0, 2**63 - 1),
    "unfreeze_last": (0, 1024),
    "patience": (1, 1e6),
    "save_every": (1, 1e9),
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
}
_OPTIONAL = {"epochs", "steps", "clip_norm", "ema_decay", "patience", "save_every"}
_PAIRS = ("betas", "rand_augment")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. Raises ConfigError, naming the field, for a value that makes no sense.

    A run lasts `epochs` or `steps`: one of them is None. A step is one update from `batch_size`
    images, computed in `accumulation` parts to save memory. `batch_fraction` bounds a batch by a
    share of the training set, see `batch_size_for`.

    `optimizer` "muon" is Muon for the kernels in the blocks and AdamW for all else, with one `lr`;
    `momentum` is Muon's or SGD's, `betas` are AdamW's.

    `weight_decay` is for kernels alone (arrays of more than one axis), multiplied by the learning
    rate as in PyTorch. `warmup` is a number of steps (int) or a share of them (float below 1); then
    `schedule` leads from `lr` to `end_lr`. `layer_decay` multiplies the rate once for each layer
    below the head. `loss` "sigmoid" is big_vision's: summed over classes;
    `head_bias` is what a new head's bias starts from. `drop_path` is stochastic depth's rate in the
    last block, `drop_path_rescale` divides what is kept by its probability; `dropout` is that of
    the pre-logits. `ema_decay` None means no average of the weights. `dtype` is what the network
    computes in; weights are float32. `freeze` "backbone" trains the head alone, or with
    `unfreeze_last` N also the last norm and N blocks. `augmentation`: "crop" a random area resized,
    "pad" a padded crop, "auto" by the image size; with `flip` both are mirrored at random.
    `rand_augment` is (layers, magnitude) or None, `erasing` the probability of random erasing,
    `mixup` and `cutmix` are the p of Beta(p, p), 0 for none. `balance` makes up for classes with
    few images: "loss" weights the loss, "sampling" draws them more often.
    `patience`: stop after so many epochs without a better validation result. `save_every` so many
    steps, beside each epoch.
    """

    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 32
    batch_fraction: float = 1.0
    accumulation: int = 1
    optimizer: str = "adamw"
    lr: float = 1e-3
    end_lr: float = 0.0
    warmup: int | float = 0.1
    schedule: str = "cosine"
    layer_decay: float = 1.0
    weight_decay: float = 0.0
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = 1.0
    loss: str = "softmax"
    label_smoothing: float = 0.0
    head_bias: float = 0.0
    drop_path: float = 0.0
    drop_path_rescale: bool = False
    dropout: float = 0.0
    ema_decay: float | None = None
    dtype: str = "float32"
    gradient_checkpointing: bool = False
    freeze: str | None = None
    unfreeze_last: int = 0
    augmentation: str = "auto"
    flip: bool = True
    rand_augment: tuple[int, int] | None = None
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    balance: str = "none"
    patience: int | None = None
    save_every: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                allowed = ", ".join(str(choice) for choice in choices)
                raise _error(name, getattr(self, name), f"one of {allowed}")
        for name, (low, high) in _WHOLE.items():
            _check(name, getattr(self, name), low, high, whole=True)
        for name, bounds in _NUMBERS.items():
            _check(name, getattr(self, name), *bounds)
        for name in ("drop_path_rescale", "flip", "gradient_checkpointing"):
            if not isinstance(getattr(self, name), bool):
                raise _error(name, getattr(self, name), "true or false")
        if isinstance(self.warmup, int):
            _check("warmup", self.warmup, 0, 1e9, whole=True)
        else:
            _check("warmup", self.warmup, 0, 0.999)
        self._check_pairs()
        if (self.epochs is None) == (self.steps is None):
            raise ConfigError("A recipe has either epochs or steps; give one of them.")
        if self.unfreeze_last and not self.freeze:
            raise ConfigError('unfreeze_last needs freeze = "backbone"; set it, or leave both out.')

    def _check_pairs(self) -> None:
        for name in _PAIRS:
            value = getattr(self, name)
            if value is None and name == "rand_augment":
                continue
            if not isinstance(value, tuple | list) or len(value) != 2:
                raise _error(name, value, "a pair of numbers")
            object.__setattr__(self, name, tuple(value))
        for beta in self.betas:
            _check("betas", beta, 0, 0.9999999)
        if self.rand_augment:
            _check("rand_augment's layers", self.rand_augment[0], 1, 16, whole=True)
            _check("rand_augment's magnitude", self.rand_augment[1], 0, 30, whole=True)

    def batch_size_for(self, examples: int) -> int:
        """The batch size for a training set of that many images."""
        return max(1, min(self.batch_size, int(examples * self.batch_fraction)))

    def total_steps(self, steps_per_epoch: int) -> int:
        """Updates in a whole run."""
        return self.steps or (self.epochs or 0) * steps_per_epoch

    def replace(self, **changes: object) -> "Recipe":
        """A copy with other values, checked anew; `epochs` takes the place of `steps`, or back.

        False means None where a field may be None.
        """
        for name in _OPTIONAL | {"freeze", "rand_augment"}:
            if changes.get(name) is False:
                changes[name] = None
        for one, other in (("epochs", "steps"), ("steps", "epochs")):
            if changes.get(one) is not None:
                changes.setdefault(other, None)
        _check_names(changes)
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        values = dataclasses.asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Recipe":
        """The inverse of `to_dict`; what is left out has its default. Raises ConfigError."""
        _check_names(values)
        return cls(**values)  # type: ignore[arg-type]

    def with_toml(self, path: Path) -> "Recipe":
        """A copy with the values of a TOML file, whose keys are this class's fields.

        Raises ConfigError. (TOML has no null: `clip_norm = false` means None.)
        """
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is no readable TOML file ({error}).") from error
        try:
            return self.replace(**values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def _check_names(values: Mapping[str, object]) -> None:
    known = [field.name for field in dataclasses.fields(Recipe)]
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(
            f"A recipe has no {', '.join(unknown)}; its fields are {', '.join(known)}."
        )


def _check(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    if value is None and name in _OPTIONAL:
        return
    types = int if whole else (int, float)
    fits = isinstance(value, types) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not low <= value <= high:  # type: ignore[operator]
        kind = "a whole number" if whole else "a number"
        raise _error(name, value, f"{kind} from {low:g} to {high:g}")


def _error(name: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"{name} is {value!r}; it must be {allowed}.")
