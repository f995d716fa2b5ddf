"""What MLX would launch on a Mac's GPU, counted from the graph, on any machine.

    python benchmarks/launches.py

Nothing here runs on a GPU. A forward pass and a training step are built as on a GPU (the batch as a
whole, compiled) but not computed; `mx.export_to_dot` shows the operations that are left after MLX
has fused element-wise chains, and the rules below say how many kernels and copies each of them is.
They were read in MLX at commit 846d1762, in `mlx/backend/metal/` and `mlx/backend/gpu/`:

- Views are free: broadcasts, slices, splits, transposes, reshapes (gpu/primitives.cpp).
- But a reshape of transposed axes copies (gpu/copy.cpp), as LayerNorm's derivative does with a
  cotangent that isn't contiguous (normalization.cpp).
- A fused chain is one kernel (compiled.cpp). So is any other element-wise operation, cast, softmax,
  logsumexp, argmax and gather, and a sort of up to 2048 numbers a row (sort.cpp).
- Concatenating and stacking copy each part (slicing.cpp).
- LayerNorm is one kernel; its derivative is one, and a sum each for weights and biases, if it has
  them (normalization.cpp).
- A sum is one kernel, or two: of more than 4096 numbers into one, or of more than 256 rows into
  fewer than 32,768 columns (reduce.cpp).
- A matrix product is one kernel, or two if K is split: without batches, with K at least 128, M and
  N, and a result of at most 1024 tiles of 16 x 16 (matmul.cpp; Max and Ultra chips split results up
  to twice as large, and chips with neural accelerators by another rule).

Models of two and three blocks are counted; each further block adds the same.
"""

import io
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import mlx.core as mx
import numpy as np
from markdown_table import table
from mlx.utils import tree_flatten

import mixer_mlx
from mixer_mlx import MixerConfig, MlpMixer, ModelInfo, Preprocess
from mixer_mlx.classify import Classifier, _top
from mixer_mlx.runtime import backend
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.state import State
from mixer_mlx.training.step import make_step

CASES = ("B/16", "L/16", "cifar10")
BATCHES = (1, 32, 128)
DTYPES = ("float32", "float16")

RESHAPES = {"Flatten", "Reshape", "Unflatten"}
VIEWS = RESHAPES | {
    *("Broadcast", "BroadcastAxes", "Copy", "CustomTransforms", "Depends", "ExpandDims"),
    *("Slice", "Split", "Squeeze", "StopGradient", "Transpose"),
}
NORM, NORM_GRADIENT, WEIGHT_GRADIENT = "CumSum", "CumProd", "CumMax"
"""They stand in for LayerNorm, which MLX takes apart on the CPU, for its derivative, and for the
sum that this takes for weights or biases."""


@dataclass
class Node:
    """An operation of the graph: its inputs are operations, or None for what is computed before."""

    name: str
    inputs: list["Node | None"] = field(default_factory=list)

    def moved(self) -> bool:
        """Whether the result isn't contiguous: a view of transposed or repeated numbers."""
        if self.name in ("Transpose", "Broadcast"):
            return True
        view = self.name in VIEWS and not self.copies()
        return view and self.inputs[0] is not None and self.inputs[0].moved()

    def copies(self) -> int:
        """How many copies the operation begins with."""
        if self.name == "Concatenate":
            return len(self.inputs)
        needs_order = self.name in RESHAPES or self.name == NORM_GRADIENT
        return int(needs_order and any(one is not None and one.moved() for one in self.inputs[:1]))


def count(case: str, batch: int, dtype: str, *, training: bool) -> Counter[str]:
    """The launches of a forward pass or a training step, by kind."""
    whole = config_of(case)
    two, three = (
        _count(whole.replace(num_blocks=blocks), batch, dtype, training=training)
        for blocks in (2, 3)
    )
    more = whole.num_blocks - 2
    return Counter({kind: two[kind] + more * (three[kind] - two[kind]) for kind in three})


def config_of(case: str) -> MixerConfig:
    return mixer_mlx.load(case).config if case == "cifar10" else MixerConfig.variant(case)


def _count(config: MixerConfig, batch: int, dtype: str, *, training: bool) -> Counter[str]:
    with as_on_a_gpu():
        build = step_graph if training else forward_graph
        nodes = parse(build(config, batch, dtype))
    found: Counter[str] = Counter()
    for node in nodes:
        found["copies"] += node.copies()
        if node.name not in VIEWS | {"Concatenate"}:
            found[kind(node.name)] += 1
    found["products in two steps"] = sum(
        splits_k(*sizes) for sizes in products(config, batch, training=training)
    )
    sums = sum(node.name == WEIGHT_GRADIENT for node in nodes)
    found["sums in two steps"] = second_passes(config, batch, sums) if training else 0
    return found


def kind(name: str) -> str:
    """How an operation is called in the table."""
    if name == NORM:
        return "LayerNorm"
    if name in (NORM_GRADIENT, WEIGHT_GRADIENT):
        return "LayerNorm's derivative"
    if name in ("Matmul", "AddMM"):
        return "products"
    if name == "Reduce" or name == "Sum":
        return "sums"
    return "fused chains" if name.startswith("Compiled") else "other kernels"


def products(
    config: MixerConfig, batch: int, *, training: bool
) -> Iterator[tuple[int, int, int, int]]:
    """The matrix products that aren't a vector's: (batches, M, N, K)."""
    S, C = config.num_tokens, config.hidden_dim
    channels = [(C, config.num_classes, 1)]
    for inputs, outputs, vectors in config.linear_maps * config.num_blocks:
        if vectors == S:
            channels.append((inputs, outputs, S))
            continue
        yield batch, outputs, C, inputs
        if training:
            yield batch, inputs, C, outputs
            yield batch, outputs, inputs, C
    for inputs, outputs, vectors in channels:
        rows = batch * vectors
        yield 1, rows, outputs, inputs
        if training:
            yield 1, outputs, inputs, rows
            yield 1, rows, inputs, outputs
    yield 1, batch * S, C, config.patch_dim
    if training:  # nothing needs the gradient of the images
        yield 1, C, config.patch_dim, batch * S


def splits_k(batches: int, M: int, N: int, K: int) -> bool:
    """Whether Metal computes a product in two steps; a vector's never."""
    tiles = math.ceil(M / 16) * math.ceil(N / 16)
    return batches == 1 and min(M, N) > 1 and tiles <= 1024 and max(128, M, N) <= K


def second_passes(config: MixerConfig, batch: int, norms: int) -> int:
    """The sums of a training step that take a second kernel: of layer norms, and of the norm."""
    return (norms if batch * config.num_tokens > 256 else 0) + 2


def forward_graph(config: MixerConfig, batch: int, dtype: str) -> list[mx.array]:
    """What `Classifier.predict` computes of a batch, after a first one of that size."""
    model = zeros(config)
    model.set_dtype(getattr(mx, dtype))
    classifier = Classifier(model, ModelInfo(config, Preprocess(config.image_size)))
    with mock.patch.object(mx, "async_eval"):
        for _ in range(2):
            running: Any = classifier._network._start(pixels(config, batch), _top(5))
    return [running.finite, *running.found]


def step_graph(config: MixerConfig, batch: int, dtype: str) -> list[mx.array]:
    """What a step of AdamW with clipping and EMA computes."""
    recipe = Recipe(steps=2, batch_size=batch, dtype=dtype, clip_norm=1.0, ema_decay=0.9999)
    state = State.start(zeros(config), recipe)
    if state.packing:
        state.arrays = state.packing.packed(state.arrays)
    mx.eval(state.arrays)
    step = make_step(config, recipe, Preprocess(config.image_size))
    labels = np.zeros(batch, np.int32)
    arrays, report = step(state.arrays, state.frozen, pixels(config, batch), labels, 0, 1e-3)
    return [report, *(value for _, value in tree_flatten(arrays))]


def zeros(config: MixerConfig) -> MlpMixer:
    model = MlpMixer(config)
    model.load_weights([(k, mx.zeros(v.shape)) for k, v in tree_flatten(model.parameters())])
    return model


def pixels(config: MixerConfig, batch: int) -> np.ndarray:
    return np.zeros((batch, *config.image_size, config.in_channels), np.uint8)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """The code takes a GPU's ways: a batch as a whole, always compiled, LayerNorm one operation."""
    with ExitStack() as stack:

        def patch(*target: Any) -> None:
            stack.enter_context(mock.patch.object(*target))

        def whole(config: MixerConfig, size: int, *_: int) -> list[list[tuple[int, int]]]:
            return [[(0, size)]]

        patch(backend, "gpu_is_default", lambda: True)
        patch(mixer_mlx.training.step, "gpu_is_default", lambda: True)
        patch(mixer_mlx.forward, "rounds", whole)
        patch(mixer_mlx.training.step, "rounds", whole)
        patch(mixer_mlx.training.network, "gpu_is_default", lambda: True)
        patch(mixer_mlx.ops.norm, "gpu_is_default", lambda: True)
        patch(mixer_mlx.ops.activations, "gpu_is_default", lambda: True)
        patch(mx.fast, "layer_norm", layer_norm)
        yield


def layer_norm(x: mx.array, weight: mx.array | None, bias: mx.array | None, eps: float) -> mx.array:
    """What stands in for `mx.fast.layer_norm`."""
    given = [one for one in (weight, bias) if one is not None]

    @mx.custom_function
    def function(x: mx.array, *given: mx.array) -> mx.array:
        return mx.depends([mx.cumsum(x, axis=-1)], list(given))[0]

    @function.vjp
    def _(primals: Any, cotangent: mx.array, _: mx.array) -> tuple[mx.array, ...]:
        x, *given = primals if isinstance(primals, list | tuple) else [primals]
        gradient = mx.depends([mx.cumprod(cotangent, axis=-1)], [x, *given])[0]
        rows = [mx.depends([mx.cummax(one, axis=-1)], [gradient])[0] for one in given]
        return (gradient, *rows)

    return function(x, *given)


def parse(outputs: list[mx.array]) -> list[Node]:
    """The operations that compute the outputs."""
    file = io.StringIO()
    mx.export_to_dot(file, *outputs)
    nodes: dict[str, Node] = {}
    makers: dict[str, str] = {}
    edges = []
    for line in file.getvalue().splitlines():
        if found := re.fullmatch(r'\{ (\d+) \[label ="(.*)", shape=rectangle\]; \}', line):
            nodes.setdefault(found[1], Node(found[2]))
        elif found := re.fullmatch(r'"(.+)" -> (\d+)', line):
            edges.append((found[1], found[2]))
        elif found := re.fullmatch(r'(\d+) -> "(.+)"', line):
            makers[found[2]] = found[1]
    for array, node in edges:
        nodes[node].inputs.append(nodes.get(makers.get(array, "")))
    return list(nodes.values())


def main() -> None:
    for training, title in ((False, "Forward pass, top 5"), (True, "AdamW step, clipping, EMA")):
        rows = [row(case, batch, training) for case in CASES for batch in BATCHES]
        print(f"{title}:\n", *table(["model", "batch", *DTYPES], rows), "", sep="\n")


def row(case: str, batch: int, training: bool) -> list[str]:
    totals = [count(case, batch, dtype, training=training).total() for dtype in DTYPES]
    return [case, str(batch), *(f"{total:,}" for total in totals)]


if __name__ == "__main__":
    main()
