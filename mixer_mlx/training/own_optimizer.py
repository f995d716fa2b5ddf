"""Optimisers of `mlx.optimizers` in the place of the recipe's.

Their state is a tree; here it is flat, by dotted paths, as all that a step changes.
"""

import mlx.core as mx
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten, tree_unflatten

from .optimizer import Weights


def first_state(optimizer: Optimizer, weights: Weights) -> Weights:
    """Its state before the first update."""
    optimizer.init(tree_unflatten(list(weights.items())))
    return _flat(optimizer.state)


def update(
    optimizer: Optimizer,
    lr: float | None,
    arrays: dict[str, Weights],
    gradients: Weights,
    f: Weights,
) -> dict[str, Weights]:
    """New "weights", "optimizer", and "ema" if `arrays` has it; `f` is from `optimizer.factors`.

    `lr` None leaves the optimiser its own rate. Nothing changes if `f["good"]` is 0, as it is after
    a step whose numbers weren't finite.
    """
    optimizer.state = tree_unflatten(list(arrays["optimizer"].items()))
    if lr is not None:
        optimizer.learning_rate = lr
    weights = tree_unflatten(list(arrays["weights"].items()))
    scaled = tree_unflatten([(name, g * f["gradient"]) for name, g in gradients.items()])
    found = {
        "weights": _flat(optimizer.apply_gradients(scaled, weights)),
        "optimizer": _flat(optimizer.state),
    }
    good = f["good"] > 0
    # In the order before, which MultiOptimizer changes, and row-major: otherwise sums and products
    # would be rounded in another way after a resume.
    new = {
        group: {
            name: mx.contiguous(mx.where(good, flat[name], old))
            for name, old in arrays[group].items()
        }
        for group, flat in found.items()
    }
    if "ema" in arrays:
        new["ema"] = {
            name: old + (new["weights"][name] - old) * f["ema"]
            for name, old in arrays["ema"].items()
        }
    return new


def _flat(tree: object) -> Weights:
    return dict(tree_flatten(tree))
