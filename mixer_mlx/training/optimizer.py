"""From gradients to new weights: schedules, clipping, AdamW, SGD with momentum, averaging.

Weights, gradients and moments are dicts from a parameter's name to a float32 array.
"""

import math

import mlx.core as mx

from mixer_mlx.training.recipe import Recipe

Weights = dict[str, mx.array]

EPS = 1e-8


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The rate of step 0, 1, ..., total - 1.

    It rises in equal parts to `lr`, which the last step of the warm-up has, and then falls to
    `end_lr`, which a step `total` would have.
    """
    warmup = recipe.warmup if isinstance(recipe.warmup, int) else round(recipe.warmup * total)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    left = {
        "constant": 1.0,
        "linear": 1 - done,
        "cosine": (1 + math.cos(math.pi * done)) / 2,
    }[recipe.schedule]
    return recipe.end_lr + (recipe.lr - recipe.end_lr) * left


def global_norm(gradients: Weights) -> mx.array:
    """The length of all gradients as one vector, summed in float32."""
    squares = [g.astype(mx.float32).square().sum() for g in gradients.values()]
    return mx.stack(squares).sum().sqrt()


def clip(gradients: Weights, norm: mx.array, most: float) -> Weights:
    """Gradients shortened to a length of `most`, as `torch.nn.utils.clip_grad_norm_` does."""
    factor = mx.minimum(1.0, most / (norm + 1e-6))
    return {name: g * factor for name, g in gradients.items()}


def first_moments(recipe: Recipe, weights: Weights) -> dict[str, Weights]:
    """The optimiser's state before the first update: m and v for AdamW, v for SGD."""
    names = ("m", "v") if recipe.optimizer == "adamw" else ("v",)
    return {name: {key: mx.zeros_like(w) for key, w in weights.items()} for name in names}


def update(
    recipe: Recipe,
    weights: Weights,
    gradients: Weights,
    moments: dict[str, Weights],
    count: mx.array,
    lr: mx.array,
) -> tuple[Weights, dict[str, Weights]]:
    """New weights and moments; `count`, a float32 number, is 1 at the first update."""
    rule = _adamw if recipe.optimizer == "adamw" else _sgd
    new: Weights = {}
    kept: dict[str, Weights] = {name: {} for name in moments}
    for key, w in weights.items():
        old = {name: values[key] for name, values in moments.items()}
        decay = recipe.weight_decay if w.ndim > 1 else 0.0
        new[key], after = rule(recipe, w, gradients[key], old, decay, count, lr)
        for name, value in after.items():
            kept[name][key] = value
    return new, kept


def _adamw(
    recipe: Recipe,
    w: mx.array,
    g: mx.array,
    moments: Weights,
    decay: float,
    count: mx.array,
    lr: mx.array,
) -> tuple[mx.array, Weights]:
    """Loshchilov and Hutter, arXiv 1711.05101, in PyTorch's form: decay is multiplied by lr."""
    b1, b2 = recipe.betas
    m = b1 * moments["m"] + (1 - b1) * g
    v = b2 * moments["v"] + (1 - b2) * g.square()
    denominator = v.sqrt() * mx.rsqrt(_one_less_power(b2, count)) + EPS
    step = lr / _one_less_power(b1, count)
    return w * (1 - lr * decay) - step * (m / denominator), {"m": m, "v": v}


def _one_less_power(beta: float, count: mx.array) -> mx.array:
    """1 - beta**count, without the digits that float32 would lose for a beta close to 1."""
    return -mx.expm1(count * math.log(beta)) if beta else mx.ones_like(count)


def _sgd(
    recipe: Recipe,
    w: mx.array,
    g: mx.array,
    moments: Weights,
    decay: float,
    count: mx.array,
    lr: mx.array,
) -> tuple[mx.array, Weights]:
    """v = momentum v + g, w = w - lr v, as in PyTorch; decay is added to the gradient."""
    v = recipe.momentum * moments["v"] + (g + decay * w if decay else g)
    return w - lr * v, {"v": v}


def average(ema: Weights, weights: Weights, decay: float, count: mx.array) -> Weights:
    """decay * ema + (1 - decay) * weights.

    At update n the decay is at most n / (n + 9), as in TensorFlow's ExponentialMovingAverage: so
    that a short run isn't averaged with its start.
    """
    share = 1 - mx.minimum(decay, count / (count + 9))
    return {name: e + (weights[name] - e) * share for name, e in ema.items()}
