"""Gradients -> new weights: schedules, clipping, AdamW, Muon, SGD with momentum, EMA.

Weights, gradients and moments are dicts from a parameter's name to a float32 array.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx

from .recipe import Recipe

Weights = dict[str, mx.array]

EPS = 1e-8
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""The quintic of Muon, from Jordan et al., https://kellerjordan.github.io/posts/muon/."""


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The rate of step 0, 1, ..., total - 1.

    It rises linearly to `lr` at the last step of the warm-up, then falls towards `end_lr`, which a
    step `total` would have.
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


def rate_scales(layer_decay: float, names: list[str]) -> dict[str, float]:
    """Factors of the learning rate: layer_decay ** (layers between a parameter and the head).

    Layers are counted as in BEiT (Bao et al., arXiv 2106.08254): the stem is layer 0, block i is
    i + 1, and the last norm and the head come after the last block. (timm counts a Mixer's last
    norm with the last block.)
    """
    block = {name: int(name.split(".")[1]) for name in names if name.startswith("blocks.")}
    last = max(block.values(), default=-1) + 2
    below = {name: last - 1 - i for name, i in block.items()}
    below |= {name: last for name in names if name.startswith("stem.")}
    return {name: layer_decay ** below.get(name, 0) for name in names}


def global_norm(gradients: Weights) -> mx.array:
    """The L2 norm of all gradients as one vector, summed in float32."""
    squares = [g.astype(mx.float32).square().sum() for g in gradients.values()]
    return mx.stack(squares).sum().sqrt()


def clip_factor(norm: mx.array, max_norm: float) -> mx.array:
    """The factor that clips gradients to `max_norm`, as in `torch.nn.utils.clip_grad_norm_`."""
    return mx.minimum(1.0, max_norm / (norm + 1e-6))


def first_moments(recipe: Recipe, weights: Weights) -> dict[str, Weights]:
    """The optimiser's state before the first update: m and v for AdamW, v for SGD, m for Muon.

    Muon also has a v for the parameters that it leaves to AdamW.
    """
    zeros = {key: mx.zeros_like(w) for key, w in weights.items()}
    if recipe.optimizer == "sgd":
        return {"v": zeros}
    adamw = {key: w for key, w in zeros.items() if not _uses_muon(recipe, key, w.shape)}
    return {"m": zeros, "v": adamw}


def _uses_muon(recipe: Recipe, name: str, shape: tuple[int, ...]) -> bool:
    """Whether Muon updates a parameter: only the blocks' kernels; AdamW updates all others."""
    return recipe.optimizer == "muon" and name.startswith("blocks.") and len(shape) > 1


def factors(
    recipe: Recipe, count: mx.array, lr: mx.array, gradient: mx.array, good: mx.array
) -> Weights:
    """The scalars, as arrays, that `update` multiplies arrays by.

    `count`, a float32 scalar, is 1 at the first update; `gradient` scales the gradients. If `good`
    is false, `update` with these factors and zero gradients changes nothing.

    Not part of `update`: its compiled kernels would recompute them for every weight, which made
    AdamW nearly three times as slow on the CPU.
    """
    ema_decay = recipe.ema_decay or 0.0
    common: dict[str, tuple[mx.array | float, float]] = {
        "gradient": (gradient, 0.0),
        # At update n the decay is at most n / (n + 9), as in TensorFlow's
        # ExponentialMovingAverage, so that a short run forgets its start.
        "ema": (1 - mx.minimum(ema_decay, count / (count + 9)), 0.0),
        "good": (1.0, 0.0),
    }
    own: dict[str, tuple[mx.array | float, float]]
    if recipe.optimizer == "sgd":
        own = {
            "v": (recipe.momentum, 1.0),
            "step": (lr, 0.0),
            "decay": (recipe.weight_decay, 0.0),
        }
    else:
        b1, b2 = recipe.betas
        own = {
            "m": (b1, 1.0),
            "m_new": (1 - b1, 0.0),
            "v": (b2, 1.0),
            "v_new": (1 - b2, 0.0),
            "root": (mx.rsqrt(_one_less_power(b2, count)), 1.0),
            "step": (lr / _one_less_power(b1, count), 0.0),
            "decay": (lr * recipe.weight_decay, 0.0),
        }
    if recipe.optimizer == "muon":
        own |= {
            "momentum": (recipe.momentum, 1.0),
            "muon_new": (1 - recipe.momentum, 0.0),
            "muon_step": (lr, 0.0),
        }
    return {name: mx.where(good, then, other) for name, (then, other) in (common | own).items()}


def _one_less_power(beta: float, count: mx.array) -> mx.array:
    """1 - beta**count, accurate in float32 for a beta close to 1."""
    return -mx.expm1(count * math.log(beta)) if beta else mx.ones_like(count)


@dataclass(frozen=True)
class Kind:
    """How a parameter is updated: the factor of its learning rate, and whether it decays."""

    scale: float
    decays: bool
    muon: bool


def kinds(recipe: Recipe, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Kind]:
    """By name. Kernels decay; biases, and the scales of norms, don't."""
    scales = rate_scales(recipe.layer_decay, list(shapes))
    return {
        name: Kind(scales[name], len(shape) > 1, _uses_muon(recipe, name, shape))
        for name, shape in shapes.items()
    }


def update(
    recipe: Recipe,
    arrays: dict[str, Weights],
    gradients: Weights,
    f: Weights,
    kind_of: Mapping[str, Kind] | None = None,
) -> dict[str, Weights]:
    """New "weights", moments, and "ema" if `arrays` has it; `f` is from `factors`.

    `kind_of` tells the names of the gradients apart; it is left out if they are parameters'.
    """
    kind_of = kind_of or kinds(recipe, {name: g.shape for name, g in gradients.items()})
    default = _sgd if recipe.optimizer == "sgd" else _adamw
    new: dict[str, Weights] = {name: {} for name in arrays}
    for key, g in gradients.items():
        old = {name: values[key] for name, values in arrays.items() if key in values}
        rule = _muon if kind_of[key].muon else default
        after = rule(old, g * f["gradient"], f, kind_of[key])
        if "ema" in arrays:
            after["ema"] = old["ema"] + (after["weights"] - old["ema"]) * f["ema"]
        for name, value in after.items():
            new[name][key] = value
    return new


def _adamw(old: Weights, g: mx.array, f: Weights, kind: Kind) -> Weights:
    """Loshchilov and Hutter, arXiv 1711.05101, in PyTorch's form: decay is multiplied by lr."""
    m = f["m"] * old["m"] + f["m_new"] * g
    v = f["v"] * old["v"] + f["v_new"] * (g * g)
    w = old["weights"]
    if kind.decays:
        w = w * (1 - f["decay"] * kind.scale)
    w = w - (f["step"] * kind.scale) * (m / (v.sqrt() * f["root"] + EPS))
    return {"weights": w, "m": m, "v": v}


def _muon(old: Weights, g: mx.array, f: Weights, kind: Kind) -> Weights:
    """Muon with Nesterov's momentum, and steps as large as AdamW's (Liu et al., arXiv 2502.16982).

    As `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, without its bfloat16.
    """
    m = f["momentum"] * old["m"] + f["muon_new"] * g
    direction = orthogonalized(f["momentum"] * m + f["muon_new"] * g)
    w = old["weights"] * (1 - f["decay"] * kind.scale)
    w = w - (f["muon_step"] * (kind.scale * 0.2 * math.sqrt(max(g.shape)))) * direction
    return {"weights": w, "m": m}


def orthogonalized(g: mx.array, steps: int = 5) -> mx.array:
    """A matrix (rows, columns) with its singular values mapped to about 1 (0.7 to 1.2).

    By Newton-Schulz iterations, which need only matrix products; singular values below a thousandth
    of g's norm stay smaller.
    """
    a, b, c = NEWTON_SCHULZ
    x = g.T if g.shape[0] > g.shape[1] else g  # x @ x.T is then the smaller square
    x = x / (x.square().sum().sqrt() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.T if g.shape[0] > g.shape[1] else x


def _sgd(old: Weights, g: mx.array, f: Weights, kind: Kind) -> Weights:
    """v = momentum v + g, w = w - lr v, as in PyTorch; decay is added to the gradient."""
    w = old["weights"]
    if kind.decays:
        g = g + f["decay"] * w
    v = f["v"] * old["v"] + g
    return {"weights": w - (f["step"] * kind.scale) * v, "v": v}
