"""One training step: pixels in, new weights out, without a look at any number on the way.

parts of the batch -> gradients of each, added up -> clip, update, average
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mixer_mlx.config import MixerConfig
from mixer_mlx.image import Preprocess
from mixer_mlx.model import MlpMixer
from mixer_mlx.training import network, optimizer
from mixer_mlx.training.objective import LOSSES, correct
from mixer_mlx.training.optimizer import Weights
from mixer_mlx.training.recipe import Recipe

Arrays = dict[str, Weights]
"""All that a step changes. "weights": the trained parameters; "m", "v": the optimiser's moments of
them; "ema": their average, if the recipe has one; "counters": see `first_arrays`."""

REPORT = ("loss", "gradient_norm", "accuracy", "loss_scale", "skipped", "failed")
"""What the numbers of a step's report are."""

Step = Callable[
    [Arrays, Weights, NDArray[np.uint8], NDArray[np.int32], int, float], tuple[Arrays, mx.array]
]
"""(arrays, frozen weights, pixels, labels, number of the step, learning rate) -> arrays, report."""

# As torch.amp.GradScaler.
FIRST_LOSS_SCALE = 2.0**16
SCALE_GROWS_AFTER = 2000

# Numbers in the output of a block, from which a run of some hundred steps repays g++'s time.
COMPILE_FROM_SIZE = 2**16


def first_arrays(weights: Weights, recipe: Recipe) -> Arrays:
    """What a run starts from, given the weights to train.

    Counters: "updates" made; "loss_scale" and "good", the updates since it changed (float16);
    "failed" is 1 after a loss that is no number: nothing changes from then on.
    """
    scale = FIRST_LOSS_SCALE if recipe.dtype == "float16" else 1.0
    counters = {"updates": 0.0, "loss_scale": scale, "good": 0.0, "failed": 0.0}
    arrays = {"weights": dict(weights), **optimizer.first_moments(recipe, weights)}
    if recipe.ema_decay is not None:
        arrays["ema"] = dict(weights)
    arrays["counters"] = {name: mx.array(value) for name, value in counters.items()}
    return arrays


def make_step(config: MixerConfig, recipe: Recipe, preprocess: Preprocess) -> Step:
    """A step that depends on its arguments alone; its random numbers on (recipe.seed, number)."""
    gradients = _gradients(config, recipe, preprocess)
    compiled_gradients = mx.compile(gradients)

    def finish(*arguments: Any) -> tuple[Arrays, mx.array]:
        return _finish(recipe, *arguments)

    compiled_finish = mx.compile(finish)

    def step(
        arrays: Arrays,
        frozen: Weights,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int32],
        number: int,
        lr: float,
    ) -> tuple[Arrays, mx.array]:
        size = len(labels)
        fuse = _worth_compiling(config, size)
        noise = network.draw(_key(recipe.seed, number), size, config, recipe)
        scale = arrays["counters"]["loss_scale"] / size
        total: tuple[mx.array, mx.array, Weights] | None = None
        length = -(-size // recipe.accumulation)
        for start in range(0, size, length):
            end = start + length
            one = (compiled_gradients if fuse else gradients)(
                arrays["weights"],
                frozen,
                mx.array(pixels[start:end]),
                mx.array(labels[start:end]),
                network.part(noise, start, end),
                scale,
            )
            total = one if total is None else _add(total, one)
            if length < size:  # else the parts would all be computed at once
                mx.eval(total)
        assert total is not None  # noqa: S101  # a batch has at least one example
        loss, right, sums = total
        last = compiled_finish if fuse else finish
        return last(arrays, sums, loss / size, right / size, mx.array(lr, mx.float32))

    return step


def _worth_compiling(config: MixerConfig, batch_size: int) -> bool:
    """Always on a GPU; on the CPU MLX first runs g++ for some ten seconds."""
    on_gpu = mx.default_device().type == mx.DeviceType.gpu
    return on_gpu or batch_size * config.num_tokens * config.hidden_dim >= COMPILE_FROM_SIZE


def _key(seed: int, number: int) -> mx.array:
    """A key for the random numbers of one step."""
    return mx.random.key((seed * 1_000_003 + number) % 2**64)


def _gradients(
    config: MixerConfig, recipe: Recipe, preprocess: Preprocess
) -> Callable[..., tuple[mx.array, mx.array, Weights]]:
    # A model without weights of its own: each call puts in those it was given.
    model = MlpMixer(config)
    dtype: mx.Dtype = getattr(mx, recipe.dtype)
    mean, std = mx.array(preprocess.mean), mx.array(preprocess.std)
    per_example = LOSSES[recipe.loss]

    def loss(
        weights: Weights,
        frozen: Weights,
        pixels: mx.array,
        labels: mx.array,
        noise: network.Noise,
        scale: mx.array,
    ) -> tuple[mx.array, mx.array, mx.array]:
        network.put(model, {k: w.astype(dtype) for k, w in {**frozen, **weights}.items()})
        images = ((pixels / 255 - mean) / std).astype(dtype)
        logits = network.forward(model, images, noise, checkpoint=recipe.gradient_checkpointing)
        sum_of_losses = per_example(logits, labels, recipe.label_smoothing).sum()
        return sum_of_losses * scale, sum_of_losses, correct(logits, labels)

    function = mx.value_and_grad(loss)

    def gradients(*arguments: Any) -> tuple[mx.array, mx.array, Weights]:
        (_, sum_of_losses, right), sums = function(*arguments)
        return sum_of_losses, right, sums

    return gradients


def _add(
    one: tuple[mx.array, mx.array, Weights], other: tuple[mx.array, mx.array, Weights]
) -> tuple[mx.array, mx.array, Weights]:
    sums = {name: g + other[2][name] for name, g in one[2].items()}
    return one[0] + other[0], one[1] + other[1], sums


def _finish(
    recipe: Recipe, arrays: Arrays, sums: Weights, loss: mx.array, accuracy: mx.array, lr: mx.array
) -> tuple[Arrays, mx.array]:
    """The update, unless a number is not finite: then all stays, and the report says so."""
    counters = arrays["counters"]
    gradients = {name: g / counters["loss_scale"] for name, g in sums.items()}
    norm = optimizer.global_norm(gradients)
    finite = mx.isfinite(norm) & mx.isfinite(loss)
    good = finite & (counters["failed"] == 0)
    if recipe.clip_norm is not None:
        gradients = optimizer.clip(gradients, norm, recipe.clip_norm)
    new: Arrays = {}
    count = counters["updates"] + 1
    moments = {name: values for name, values in arrays.items() if name in ("m", "v")}
    new["weights"], moments = optimizer.update(
        recipe, arrays["weights"], gradients, moments, count, lr
    )
    new |= moments
    if recipe.ema_decay is not None:
        new["ema"] = optimizer.average(arrays["ema"], new["weights"], recipe.ema_decay, count)
    new = {
        group: {name: mx.where(good, value, arrays[group][name]) for name, value in values.items()}
        for group, values in new.items()
    }
    new["counters"] = _count(recipe, counters, good, finite, mx.isfinite(loss))
    skipped, failed = 1 - good.astype(mx.float32), new["counters"]["failed"]
    report = [loss, norm, accuracy, counters["loss_scale"], skipped, failed]
    return new, mx.stack(report)


def _count(
    recipe: Recipe, counters: Weights, good: mx.array, finite: mx.array, finite_loss: mx.array
) -> Weights:
    """In float16 a gradient that overflows halves the loss scale; else it ends the run."""
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
