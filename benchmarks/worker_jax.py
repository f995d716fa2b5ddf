"""The worker of Flax: the Mixer of tests/reference/flax_mixer.py, compiled by XLA."""

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import serve
from serve import Case, Plain

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "reference"))

try:
    import flax
    import flax_mixer
    import jax
    import jax.numpy as jnp
except ImportError as error:
    serve.missing(error)

try:
    import optax
except ImportError:
    optax = None

Tree = Any
Update = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
"""(parameters, gradients, state) -> new parameters and state."""


def load(case: Case, dtype: Any) -> tuple[flax_mixer.Mixer, Tree, Callable[..., Any]]:
    """The Mixer of an exported .npz file, its parameters, and how pixels become its input."""
    tensors = {name: jnp.asarray(value) for name, value in np.load(case["jax"]).items()}
    tanh = case["hidden_act"] == "gelu_tanh"
    mean, std = (jnp.array(case[key], jnp.float32) for key in ("mean", "std"))
    model = flax_mixer.like(tensors, approximate_gelu=tanh, dtype=dtype)

    def images(pixels: Any) -> Any:
        return ((pixels / 255 - mean) / std).astype(dtype)

    return model, flax_mixer.parameters(tensors), images


def on(case: Case, tree: Tree) -> Tree:
    """A copy on the case's device."""
    kind = "cpu" if case["device"] == "cpu" else None
    return jax.device_put(tree, jax.devices(kind)[0])


class Inference(Plain):
    """uint8 pixels in NumPy to float32 logits in NumPy."""

    def __init__(self, case: Case) -> None:
        dtype = jnp.dtype(case["dtype"])
        model, parameters, images = load(case, dtype)
        cast = jax.tree.map(lambda value: value.astype(dtype), parameters)
        self.parameters, self.case = on(case, cast), case
        self.forward = jax.jit(
            lambda parameters, pixels: model.apply({"params": parameters}, images(pixels)).astype(
                jnp.float32
            )
        )
        self.pixels = serve.noise(case)

    def run(self) -> None:
        self.logits = np.asarray(self.forward(self.parameters, on(self.case, self.pixels)))

    def output(self) -> dict[str, np.ndarray]:
        return {"logits": self.logits}


class Training(Plain):
    """One update in float32, compiled as a whole."""

    def __init__(self, case: Case) -> None:
        model, parameters, images = load(case, jnp.float32)

        def loss(parameters: Tree, pixels: Any, labels: Any) -> Any:
            logits = jax.nn.log_softmax(model.apply({"params": parameters}, images(pixels)))
            return -jnp.take_along_axis(logits, labels[:, None], axis=1).mean()

        state, update = optimizer(case, parameters)

        def step(parameters: Tree, state: Tree, pixels: Any, labels: Any) -> Any:
            value, gradients = jax.value_and_grad(loss)(parameters, pixels, labels)
            return *update(parameters, gradients, state), value

        self.step = jax.jit(step, donate_argnums=(0, 1))
        self.parameters, self.state = on(case, parameters), on(case, state)
        self.pixels, self.labels = serve.noise(case), serve.labels(case)
        self.case = case
        self.losses: list[float] = []

    def run(self) -> None:
        batch = on(self.case, (self.pixels, self.labels))
        self.parameters, self.state, loss = self.step(self.parameters, self.state, *batch)
        self.losses.append(float(loss))
        jax.block_until_ready(self.parameters)

    def output(self) -> dict[str, np.ndarray]:
        return {"losses": np.array(self.losses)}


def optimizer(case: Case, parameters: Tree) -> tuple[Tree, Update]:
    """Initial state and update of optax, or the same written out if it is missing."""
    if optax is None:
        return plain_optimizer(case, parameters)
    decay = optax.add_decayed_weights(case["weight_decay"], kernels)
    rules = {
        "adamw": [optax.scale_by_adam(), decay],
        "sgd": [decay, optax.trace(case["momentum"])],
    }
    chain = optax.chain(
        optax.clip_by_global_norm(case["clip_norm"]),
        *rules[case["optimizer"]],
        optax.scale_by_learning_rate(case["lr"]),
    )

    def update(parameters: Tree, gradients: Tree, state: Tree) -> tuple[Tree, Tree]:
        updates, state = chain.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state

    return chain.init(parameters), update


def kernels(parameters: Tree) -> Tree:
    """Which parameters decay."""
    return jax.tree.map(lambda value: value.ndim > 1, parameters)


def plain_optimizer(case: Case, parameters: Tree) -> tuple[Tree, Update]:
    """Clipping, then AdamW or SGD with momentum."""
    lr, each = case["lr"], jax.tree.map
    decay = each(lambda kernel: case["weight_decay"] * kernel, kernels(parameters))

    def clipped(gradients: Tree) -> Tree:
        norm = jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(gradients)))
        return each(lambda g: g * jnp.minimum(1.0, case["clip_norm"] / norm), gradients)

    def adamw(parameters: Tree, gradients: Tree, state: Tree) -> tuple[Tree, Tree]:
        count, m, v = state
        gradients, count = clipped(gradients), count + 1
        m = each(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
        v = each(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradients)

        def new(w: Any, m: Any, v: Any, decay_rate: float) -> Any:
            step = (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)
            return w - lr * (step + decay_rate * w)

        return each(new, parameters, m, v, decay), (count, m, v)

    def sgd(parameters: Tree, gradients: Tree, state: Tree) -> tuple[Tree, Tree]:
        gradients = each(
            lambda g, w, decay_rate: g + decay_rate * w, clipped(gradients), parameters, decay
        )
        state = each(lambda v, g: case["momentum"] * v + g, state, gradients)
        return each(lambda w, v: w - lr * v, parameters, state), state

    zeros = each(jnp.zeros_like, parameters)
    if case["optimizer"] == "adamw":
        return (jnp.zeros(()), zeros, each(jnp.zeros_like, parameters)), adamw
    return zeros, sgd


def versions() -> dict[str, str]:
    return {
        "flax": flax.__version__,
        "jax": jax.__version__,
        "optax": optax.__version__ if optax else "none: the update is written out",
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    serve.serve(versions(), {"inference": Inference, "training": Training})
