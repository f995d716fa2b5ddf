"""One training step: pixels in, new weights out, without waiting for any value.

parts of the batch -> gradients of each, added up -> clip, update, average
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
from mlx.optimizers import Optimizer
from numpy.typing import NDArray

from mixer_mlx.config import MixerConfig
from mixer_mlx.data.batches import check_batch
from mixer_mlx.data.mixing import Labels
from mixer_mlx.images.preprocess import Preprocess, normalized
from mixer_mlx.model import MlpMixer
from mixer_mlx.runtime.backend import gpu_is_default, worth_compiling
from mixer_mlx.runtime.ranks import ALONE, Ranks
from mixer_mlx.runtime.streams import Part, one_core_each, rounds, streams
from mixer_mlx.runtime.tuning import COMPILE_STEP_FROM, MAX_TRAINING_PART

from . import network, optimizer, own_optimizer
from .loss import LossFunction, Targets, correct, example_losses, targets
from .optimizer import Weights
from .packing import Packing
from .recipe import Recipe

Arrays = dict[str, Weights]
"""All that a step changes. "weights": the trained parameters; "m", "v": the optimiser's moments,
or "optimizer": the state of one of MLX's; "ema": the weights' average, if the recipe has one;
"counters": see `first_arrays`. By parameter, or as a `Packing` has them."""

_Sums: TypeAlias = tuple[mx.array, mx.array, Weights]
"""Sums over examples: of losses, of correct predictions, of gradients."""

_Finish: TypeAlias = Callable[..., tuple[Arrays, mx.array]]
"""`_finish`, given its first arguments."""

REPORT = ("loss", "gradient_norm", "accuracy", "loss_scale", "skipped", "failed")
"""The names of the numbers in a step's report."""

Step = Callable[
    [Arrays, Weights, NDArray[np.uint8], Labels | NDArray[Any], int, float | None],
    tuple[Arrays, mx.array],
]
"""(arrays, frozen weights, pixels, labels, number of the step, learning rate) -> arrays, report.

The rate is None for an optimiser that has its own."""

# As in torch.amp.GradScaler.
FIRST_LOSS_SCALE = 2.0**16
SCALE_GROWS_AFTER = 2000


def first_arrays(weights: Weights, recipe: Recipe, own: Optimizer | None = None) -> Arrays:
    """The arrays before the first step, given the weights to train.

    Counters: "updates" made; "loss_scale" and "good", the updates since it changed (float16);
    "failed" is 1 after a loss that isn't finite, and then nothing changes any more. `own` replaces
    the recipe's optimiser.
    """
    scale = FIRST_LOSS_SCALE if recipe.dtype == "float16" else 1.0
    counters = {"updates": 0.0, "loss_scale": scale, "good": 0.0, "failed": 0.0}
    first = own_optimizer.first_state(own, weights) if own else None
    moments = optimizer.first_moments(recipe, weights) if first is None else {"optimizer": first}
    arrays = {"weights": dict(weights), **moments}
    if recipe.ema_decay is not None:
        arrays["ema"] = dict(weights)
    arrays["counters"] = {name: mx.array(value) for name, value in counters.items()}
    return arrays


def make_step(
    config: MixerConfig,
    recipe: Recipe,
    preprocess: Preprocess,
    ranks: Ranks = ALONE,
    *,
    loss: LossFunction | None = None,
    own: Optimizer | None = None,
    packed: bool | None = None,
) -> Step:
    """A step that depends only on its arguments; its random numbers on (recipe.seed, number).

    With several `ranks` each gives its rows of the batch, and all get the same weights and report.
    `loss` and the optimiser `own` replace the recipe's. The step raises ConfigError for a batch
    that doesn't fit, before MLX sees it.

    `packed`: the arrays that it returns are those of a `Packing`, which it takes as well as any;
    on a GPU that is the default, except with an optimiser of one's `own`.
    """
    packed = (gpu_is_default() if packed is None else packed) and not own
    # Balanced classes weight the loss itself.
    sums_to_one = loss is None and recipe.loss == "sigmoid" and recipe.balance != "loss"
    gradients = _gradients(config, recipe, preprocess, loss)
    compiled_gradients = mx.compile(gradients)
    model = network.prepared(MlpMixer(config), recipe)
    shapes = {name: w.shape for name, w in network.weights_of(model).items()}
    backward = list(reversed(shapes))
    update = functools.partial(optimizer.update, recipe)
    compiled_update = mx.compile(update)

    @functools.cache
    def packed_for(frozen: frozenset[str]) -> tuple[Packing, Callable[..., _Sums], _Finish]:
        packing = Packing.of(recipe, {k: v for k, v in shapes.items() if k not in frozen})
        rule = functools.partial(optimizer.update, recipe, kind_of=packing.kinds)
        return (
            packing,
            mx.compile(functools.partial(_packed_gradients, gradients, packing, recipe.dtype)),
            mx.compile(functools.partial(_finish, recipe, rule)),
        )

    def step(
        arrays: Arrays,
        frozen: Weights,
        pixels: NDArray[np.uint8],
        labels: Labels | NDArray[Any],
        number: int,
        lr: float | None,
    ) -> tuple[Arrays, mx.array]:
        check_batch(config, pixels, labels, own_loss=loss is not None, sums=sums_to_one)
        size = len(pixels)
        fuse = worth_compiling(config, size, COMPILE_STEP_FROM)
        whole = size * ranks.size
        noise = network.draw(_key(recipe.seed, number), whole, config, recipe)
        if ranks.size > 1:
            noise = network.part(noise, ranks.rank * size, (ranks.rank + 1) * size)
        scale = arrays["counters"]["loss_scale"] / whole
        rule: Callable[..., Arrays] = compiled_update if fuse else update
        if own:
            rule = functools.partial(own_optimizer.update, own, lr)
        part_of = compiled_gradients if fuse else gradients
        finish: _Finish = functools.partial(_finish, recipe, rule)
        if packed:
            packing, part_of, finish = packed_for(frozenset(frozen))
            arrays = packing.packed(arrays)

        def part(start: int, end: int) -> _Sums:
            return part_of(
                arrays["weights"],
                frozen,
                mx.array(pixels[start:end]),
                targets(labels, start, end),
                network.part(noise, start, end),
                scale,
            )

        sums = _in_turns(part, _turns(config, recipe, size), backward)
        if ranks.size > 1:
            sums = _over_ranks(ranks, sums)
        losses, right, total = sums
        rate = mx.array(lr or 0.0, mx.float32)
        return finish(arrays, total, losses / whole, right / whole, rate)

    return step


def _turns(config: MixerConfig, recipe: Recipe, size: int) -> list[list[Part]]:
    """The rounds of all parts, with the recipe's `accumulation`."""
    length = -(-size // recipe.accumulation)
    return [
        [(start + a, start + b) for a, b in parts]
        for start in range(0, size, length)
        for parts in rounds(config, min(length, size - start), MAX_TRAINING_PART)
    ]


def _in_turns(
    gradients: Callable[[int, int], _Sums], turns: list[list[Part]], names: list[str]
) -> _Sums:
    """The sums over all parts. `names` are the weights', from the head to the stem."""
    count = max(map(len, turns))
    with one_core_each(count):
        total = _total(gradients, turns, names)
        if count > 1:
            mx.eval(total)
    return total


def _total(
    gradients: Callable[[int, int], _Sums], turns: list[list[Part]], names: list[str]
) -> _Sums:
    sums: list[_Sums] = []
    for parts in turns:
        for stream, (start, end) in zip(streams(len(parts)), parts, strict=True):
            with mx.stream(stream):
                sums.append(gradients(start, end))
        total = functools.reduce(_add, sums)
        if len(parts) > 1:
            # In the order of the backward pass: if all were evaluated together, MLX would run the
            # streams one after the other.
            for name in names:
                mx.async_eval(total[2].get(name))
        if len(turns) > 1:  # else all rounds would be computed at once
            mx.eval(total)
        sums = [total]
    return sums[0]


def _over_ranks(ranks: Ranks, total: _Sums) -> _Sums:
    loss, right, sums = total
    summed = ranks.all_reduce({"loss": loss, "right": right, **sums})
    return summed.pop("loss"), summed.pop("right"), summed


def _key(seed: int, number: int) -> mx.array:
    """The key of one step's random numbers."""
    return mx.random.key((seed * 1_000_003 + number) % 2**64)


def _gradients(
    config: MixerConfig, recipe: Recipe, preprocess: Preprocess, own_loss: LossFunction | None
) -> Callable[..., _Sums]:
    # A model without weights of its own: each call sets those that it is given.
    model = network.prepared(MlpMixer(config), recipe)
    dtype: mx.Dtype = getattr(mx, recipe.dtype)
    mean, std = mx.array(preprocess.mean), mx.array(preprocess.std)

    def loss(
        weights: Weights,
        frozen: Weights,
        pixels: mx.array,
        labels: Targets,
        noise: network.Noise,
        scale: mx.array,
    ) -> tuple[mx.array, mx.array, mx.array]:
        network.put(model, {k: w.astype(dtype) for k, w in {**frozen, **weights}.items()})
        images = normalized(pixels, mean, std).astype(dtype)
        logits = network.forward(model, images, noise, checkpoint=recipe.gradient_checkpointing)
        kind = own_loss or recipe.loss
        losses = example_losses(kind, logits, labels, recipe.label_smoothing)
        sum_of_losses = losses.sum()
        return sum_of_losses * scale, sum_of_losses, correct(logits, labels)

    function = mx.value_and_grad(loss)

    def gradients(*arguments: Any) -> _Sums:
        (_, sum_of_losses, right), sums = function(*arguments)
        return sum_of_losses, right, sums

    return gradients


def _packed_gradients(
    gradients: Callable[..., _Sums], packing: Packing, dtype: str, packed: Weights, *others: Any
) -> _Sums:
    """Gradients by group, from weights by group, which are cast to `dtype` a group at a time."""
    weights = packing.unpack({key: w.astype(getattr(mx, dtype)) for key, w in packed.items()})
    losses, right, sums = gradients(weights, *others)
    return losses, right, {k: g.astype(mx.float32) for k, g in packing.pack(sums).items()}


def _add(one: _Sums, other: _Sums) -> _Sums:
    sums = {name: g + other[2][name] for name, g in one[2].items()}
    return one[0] + other[0], one[1] + other[1], sums


def _finish(
    recipe: Recipe,
    update: Callable[..., Arrays],
    arrays: Arrays,
    sums: Weights,
    loss: mx.array,
    accuracy: mx.array,
    lr: mx.array,
) -> tuple[Arrays, mx.array]:
    """The update; if a number isn't finite, nothing changes and the report shows it."""
    counters = arrays["counters"]
    norm = optimizer.global_norm(sums) / counters["loss_scale"]
    finite = mx.isfinite(norm) & mx.isfinite(loss)
    good = finite & (counters["failed"] == 0)
    clip = 1.0 if recipe.clip_norm is None else optimizer.clip_factor(norm, recipe.clip_norm)
    factors = optimizer.factors(
        recipe,
        counters["updates"] + 1,
        lr,
        clip / counters["loss_scale"],
        good,
    )
    # Outside the compiled update, whose kernels g++ can't vectorise with a `where` in them.
    gradients = {name: mx.where(good, g, 0.0) for name, g in sums.items()}
    trained = {group: values for group, values in arrays.items() if group != "counters"}
    new = update(trained, gradients, factors)
    new["counters"] = _count(recipe, counters, good, finite, mx.isfinite(loss))
    skipped, failed = 1 - good.astype(mx.float32), new["counters"]["failed"]
    report = [loss, norm, accuracy, counters["loss_scale"], skipped, failed]
    return new, mx.stack(report)


def _count(
    recipe: Recipe, counters: Weights, good: mx.array, finite: mx.array, finite_loss: mx.array
) -> Weights:
    """The next counters. An overflow halves the loss scale in float16, otherwise the run fails."""
    half = recipe.dtype == "float16"
    failed = ~finite_loss if half else ~finite
    updates = counters["updates"] + good.astype(mx.float32)
    failed = mx.maximum(counters["failed"], failed.astype(mx.float32))
    scale, since = counters["loss_scale"], counters["good"]
    if half:
        since = mx.where(good, since + 1, 0.0)
        grows = since >= SCALE_GROWS_AFTER
        scale = mx.where(good, mx.where(grows, scale * 2, scale), scale / 2)
        since = mx.where(grows, 0.0, since)
    return {"updates": updates, "loss_scale": scale, "good": since, "failed": failed}
