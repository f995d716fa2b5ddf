"""State: everything in a run that changes, and its folder on disk.

The folder contains `state.json` (recipe and progress) and `arrays.safetensors` (float32: trained
and, except with adapters, frozen weights, the first ones, the optimiser's moments, the EMA, the
counters).
"""

import dataclasses
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten

from mixer_mlx.checkpoint import parameter_shapes, read_header, read_tensors, summarize
from mixer_mlx.checks import check_whole
from mixer_mlx.choices import WeightsName
from mixer_mlx.errors import ConfigError, MixerError, TrainingError
from mixer_mlx.model import MlpMixer
from mixer_mlx.runtime.atomic import replacing_folder
from mixer_mlx.runtime.documents import as_dataclass, read_json
from mixer_mlx.runtime.ranks import Ranks

from .network import halfway, prepared, put, trained_names, weights_of
from .optimizer import Weights
from .packing import Packing
from .recipe import Recipe
from .step import Arrays, first_arrays

_DTYPES = {mx.uint64: "U64", mx.int64: "I64", mx.uint32: "U32", mx.int32: "I32"}
"""Of what optimisers count in; all else is float32."""

STATE_FILE = "state.json"
ARRAYS_FILE = "arrays.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Progress:
    """A run's progress.

    `step` counts batches over all epochs, `epoch` completed epochs, validated if that was due.
    Between the steps `cooled_from` and `cooled_to` the run cools down, after its patience has run
    out. `best` is the best validation result so far, as (top-1, -loss), of epoch `best_epoch` with
    the `best_weights`; `improved` is the same, of epoch `improved_epoch`, without that before the
    first step. `end` is "done", "stopped" by the recipe's patience, or None.
    """

    step: int = 0
    epoch: int = 0
    best: tuple[float, float] | None = None
    best_epoch: int | None = None
    best_weights: WeightsName | None = None
    improved: tuple[float, float] | None = None
    improved_epoch: int | None = None
    end: str | None = None
    cooled_from: int | None = None
    cooled_to: int | None = None


@dataclass
class State:
    """A run between two steps. `fit` replaces `arrays` and `progress` as it goes.

    `frozen` holds the parameters that aren't trained; `first` the others before the first step, if
    the recipe's `best_by` needs them. `steps_per_epoch` is None before the first step.
    """

    recipe: Recipe
    arrays: Arrays
    frozen: Weights
    progress: Progress = Progress()
    steps_per_epoch: int | None = None
    packing: Packing | None = None
    first: Weights = field(default_factory=dict)

    @classmethod
    def start(cls, model: MlpMixer, recipe: Recipe, optimizer: Optimizer | None = None) -> "State":
        """The state before the first step; `optimizer` is that of `fit`, if it has one.

        Parameters that the recipe or the model itself (`model.freeze`) freezes aren't trained.
        Raises ConfigError if none is left, and for a model without a head or with other layers
        than its config's.
        """
        prepared(model, recipe)
        trainable: dict[str, mx.array] = dict(tree_flatten(model.trainable_parameters()))
        return cls._start(model, recipe, optimizer, trainable)

    @classmethod
    def _start(
        cls,
        model: MlpMixer,
        recipe: Recipe,
        optimizer: Optimizer | None,
        trainable: Collection[str],
    ) -> "State":
        _check_model(prepared(model, recipe), recipe)
        # Row-major, as `load` reads them: a BLAS may round differently for a transposed matrix.
        weights = {name: mx.contiguous(w) for name, w in weights_of(model).items()}
        trained = trained_names(model.config, recipe, list(weights)) & set(trainable)
        if not trained:
            raise ConfigError("All of the model is frozen; unfreeze what to train.")
        mx.eval(weights)
        ours = {name: w for name, w in weights.items() if name in trained}
        shapes = {name: w.shape for name, w in ours.items()}
        return cls(
            recipe,
            first_arrays(ours, recipe, optimizer),
            {name: w for name, w in weights.items() if name not in trained},
            packing=None if optimizer else Packing.of(recipe, shapes),
            first=dict(ours) if recipe.best_by == "halfway" else {},
        )

    def fill(self, model: MlpMixer, weights: WeightsName = "raw") -> None:
        """Put these weights into a model, as float32, and its adapters beside."""
        put(prepared(model, self.recipe), {**self.frozen, **self._weights(weights)})

    def _weights(self, name: WeightsName) -> Weights:
        if name == "start":
            return self.first
        arrays = self.by_name()
        if name == "halfway":
            return halfway(self.first, arrays.get("ema", arrays["weights"]))
        return arrays["weights" if name == "raw" else "ema"]

    def by_name(self) -> Arrays:
        """The arrays with each parameter by itself, however the step has them."""
        return self.packing.unpacked(self.arrays) if self.packing else self.arrays

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the folder atomically, replacing an older one. Raises TrainingError."""
        path = Path(folder)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing_folder(path) as temporary:
                mx.save_safetensors(
                    str(temporary / ARRAYS_FILE), self._saved(), metadata={"format": "mlx"}
                )
                text = json.dumps(self._record(), indent=2, allow_nan=False)
                (temporary / STATE_FILE).write_text(text + "\n", encoding="utf-8")
        except (OSError, RuntimeError) as error:  # MLX reports a failed write as RuntimeError
            raise TrainingError(f"The state can't be written to {path}: {error}.") from error

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        model: MlpMixer,
        optimizer: Optimizer | None = None,
    ) -> "State":
        """Read what `save` wrote; `model` determines the expected arrays, and gets the weights.

        With adapters, `model` must have the weights that the run began with. `optimizer` is one as
        the run began with, if `fit` was given one. Raises TrainingError.
        """
        path = Path(folder)
        try:
            record = read_json(path / STATE_FILE)
            if record.get("format") != FORMAT:
                raise ConfigError(f"its format is {record.get('format')!r}, not {FORMAT}.")
            recipe = Recipe.from_dict(_table(record, "recipe"))
            progress = _progress(_table(record, "progress"))
            steps_per_epoch = record["steps_per_epoch"]
            if steps_per_epoch is not None:
                check_whole("steps_per_epoch", steps_per_epoch, 1, 10**15)
            header = read_header(path / ARRAYS_FILE)
            trained = {name.removeprefix("weights/") for name in header}
            state = cls._start(model, recipe, optimizer, trained)
            _check(path / ARRAYS_FILE, header, state._saved())
        except (MixerError, KeyError, TypeError) as error:
            raise TrainingError(f"The state in {path} can't be used: {error}") from error
        state.progress, state.steps_per_epoch = progress, steps_per_epoch  # type: ignore[assignment]
        state._take(read_tensors(path / ARRAYS_FILE))
        state.fill(model)
        return state

    def shared(self, ranks: Ranks) -> "State":
        """Rank 0's state, on all ranks: the others need no folder, nor the same weights."""
        if ranks.size > 1:
            record = ranks.broadcast([dataclasses.asdict(self.progress), self.steps_per_epoch])
            self.progress, self.steps_per_epoch = _progress(record[0]), record[1]
            self._take(ranks.broadcast_arrays(self._flat()))
        return self

    def _flat(self) -> Weights:
        groups = {"frozen": self.frozen, "first": self.first, **self.by_name()}
        return {f"{group}/{name}": w for group, part in groups.items() for name, w in part.items()}

    def _saved(self) -> Weights:
        """What the folder has: with adapters not the frozen weights, which are the base's."""
        flat = self._flat()
        if self.recipe.lora_rank:
            return {name: w for name, w in flat.items() if not name.startswith("frozen/")}
        return flat

    def _take(self, flat: Mapping[str, mx.array]) -> None:
        mx.eval(flat)
        self.arrays = self.by_name()
        groups = {"frozen": self.frozen, "first": self.first, **self.arrays}
        for group, part in groups.items():
            part |= {name: w for name in part if (w := flat.get(f"{group}/{name}")) is not None}

    def _record(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "recipe": self.recipe.to_dict(),
            "progress": dataclasses.asdict(self.progress),
            "steps_per_epoch": self.steps_per_epoch,
        }


def _check_model(model: MlpMixer, recipe: Recipe) -> None:
    if not model.config.num_classes:
        raise ConfigError(
            "The model has no head to train; give it one by model.with_head(classes)."
        )
    if parameter_shapes(model) != parameter_shapes(prepared(MlpMixer(model.config), recipe)):
        raise ConfigError(
            "The model's layers aren't those of its config, so it can't be trained; change its "
            "head by model.with_head(classes), and don't quantise it."
        )


def _check(
    path: Path, header: Mapping[str, tuple[tuple[int, ...], str]], expected: Weights
) -> None:
    """Raise TrainingError unless the file's names, shapes and dtypes are those expected."""
    faults = [f"{name} is missing" for name in expected if name not in header]
    for name, (shape, dtype) in header.items():
        if name not in expected:
            faults.append(f"{name} isn't part of the model")
        else:
            wanted, kind = list(expected[name].shape), _DTYPES.get(expected[name].dtype, "F32")
            if list(shape) != wanted or dtype != kind:
                faults.append(f"{name} is {dtype} {list(shape)}, not {kind} {wanted}")
    if faults:
        raise TrainingError(f"{path.name} doesn't fit the model: {summarize(faults)}.")


def _table(values: dict[str, object], key: str) -> dict[str, object]:
    table = values.get(key)
    if not isinstance(table, dict):
        raise ConfigError(f"it has no object {key!r}.")
    return table


def _progress(values: dict[str, object]) -> Progress:
    progress = as_dataclass(Progress, values)
    for name in ("step", "epoch", "best_epoch", "improved_epoch", "cooled_from", "cooled_to"):
        check_whole(name, getattr(progress, name) or 0, 0, 10**15)
    if (progress.cooled_from or 0) >= (progress.cooled_to or 1):
        raise ConfigError("its cooled_from isn't below its cooled_to.")
    return progress
