"""The network as a short list of operations, which each format writes in its own way.

Names are module paths: the result of `blocks.0.token_mixing.fc1` has the weights
`blocks.0.token_mixing.fc1.weight` and `.bias`. Shapes leave out the batch, the first axis.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mixer_mlx.choices import ExportInput
from mixer_mlx.config import MixerConfig
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.siblings import GATE_NORM_EPS

Op = Literal[
    "patches",  # (H, W, in) -> (S, P * P * in), patches in raster order, each pixel by pixel
    "linear",  # (..., in) -> (..., out): x @ weight.T + bias; weight is (out, in)
    "token_linear",  # (S, C) -> (out, C): weight @ x + bias[:, None]; weight is (out, S)
    "layer_norm",  # over channels, with `eps`
    "affine",  # x * weight + bias for each channel
    "scale",  # x * weight for each channel; the weight has the name of the node
    "activation",  # `form`, one of choices.HiddenAct
    "half",  # the first (`index` 0) or second half along tokens (`axis` 1) or channels (2)
    "add",
    "multiply",
    "mean",  # (S, C) -> (C,)
    "softmax",
]


@dataclass(frozen=True)
class Node:
    """One operation; `inputs` are the names of earlier nodes, or INPUT. `shape`: the result's."""

    op: Op
    name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    eps: float = 0.0
    form: str = ""
    axis: int = 0
    index: int = 0


@dataclass(frozen=True)
class Graph:
    """A network, in the order of its computation.

    `input` "image": pixels 0 to 255 times `pixel_scale`, with the model's mean and std in the stem;
    "array": pixels normalised by the caller. `input_shape` is (H, W, in), `output` the name of
    what the last node computes: "logits", "pre_logits" (no head) or "probabilities".
    `weights` are float32.
    """

    info: ModelInfo
    input: ExportInput
    input_shape: tuple[int, int, int]
    nodes: tuple[Node, ...]
    weights: Mapping[str, np.ndarray]
    output: str

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the result, without the batch."""
        return self.nodes[-1].shape

    def weight_and_bias(self, node: Node) -> tuple[np.ndarray, np.ndarray]:
        """Those of a node that has both."""
        return self.weights[f"{node.name}.weight"], self.weights[f"{node.name}.bias"]


INPUT = "input"
"""The name of the network's input among the `inputs` of nodes."""


def describe(
    model: MlpMixer,
    info: ModelInfo,
    *,
    input: ExportInput = "image",
    pixel_scale: float = 1.0,
    softmax: bool = False,
) -> Graph:
    """The network of a model; `softmax` needs a head."""
    made = _Builder(info.config)
    made.network()
    output = "logits" if info.config.num_classes else "pre_logits"
    if softmax:
        output = "probabilities"
        made.add("softmax", "softmax", made.nodes[-1])
    weights = {name: np.array(value) for name, value in _parameters(model)}
    shape = (*info.config.image_size, info.config.in_channels)
    if input == "image":
        _fold_preprocessing(weights, info, pixel_scale)
    weights["stem.weight"] = weights["stem.weight"].reshape(info.config.hidden_dim, -1)
    return Graph(info, input, shape, tuple(made.nodes), weights, output)


class _Builder:
    """The nodes of a network, each block by the code of `mixer_mlx.model` or `siblings`."""

    def __init__(self, config: MixerConfig):
        self.config = config
        self.nodes: list[Node] = []

    def network(self) -> None:
        config = self.config
        image = Node("patches", INPUT, (), (*config.image_size, config.in_channels))
        x = self.add("patches", "patches", image, shape=(config.num_tokens, config.patch_dim))
        x = self.linear("stem", x, config.hidden_dim)
        block = {
            "mlp_mixer": self.mixer_block,
            "resmlp": self.resmlp_block,
            "gmlp": self.gmlp_block,
            "gmixer": self.gmixer_block,
        }[config.model_type]
        for i in range(config.num_blocks):
            x = block(f"blocks.{i}", x)
        x = self.add("affine", "norm", x) if config.model_type == "resmlp" else self.norm("norm", x)
        x = self.add("mean", "pre_logits", x, shape=(config.hidden_dim,))
        if config.num_classes:
            self.linear("head", x, config.num_classes)

    def mixer_block(self, name: str, x: Node) -> Node:
        y = self.mlp(f"{name}.token_mixing", self.norm(f"{name}.norm1", x))
        x = self.add("add", f"{name}.add1", x, y)
        y = self.mlp(f"{name}.channel_mixing", self.norm(f"{name}.norm2", x))
        return self.add("add", f"{name}.add2", x, y)

    def resmlp_block(self, name: str, x: Node) -> Node:
        y = self.add("affine", f"{name}.norm1", x)
        y = self.token_linear(f"{name}.token_mixing", y, self.config.num_tokens)
        x = self.add("add", f"{name}.add1", x, self.add("scale", f"{name}.scale1", y))
        y = self.mlp(f"{name}.channel_mixing", self.add("affine", f"{name}.norm2", x))
        return self.add("add", f"{name}.add2", x, self.add("scale", f"{name}.scale2", y))

    def gmlp_block(self, name: str, x: Node) -> Node:
        config = self.config
        y = self.linear(f"{name}.fc1", self.norm(f"{name}.norm", x), config.channels_mlp_dim)
        u, v = self.halves(self.activation(f"{name}.act", y), axis=2)
        v = self.norm(f"{name}.gate.norm", v, eps=GATE_NORM_EPS)
        v = self.token_linear(f"{name}.gate.proj", v, config.num_tokens)
        y = self.linear(f"{name}.fc2", self.add("multiply", f"{name}.gate", u, v), x.shape[1])
        return self.add("add", f"{name}.add", x, y)

    def gmixer_block(self, name: str, x: Node) -> Node:
        y = self.glu(f"{name}.token_mixing", self.norm(f"{name}.norm1", x))
        x = self.add("add", f"{name}.add1", x, y)
        y = self.glu(f"{name}.channel_mixing", self.norm(f"{name}.norm2", x))
        return self.add("add", f"{name}.add2", x, y)

    def mlp(self, name: str, x: Node) -> Node:
        linear, wide, narrow = self.sizes(name, x)
        y = self.activation(f"{name}.act", linear(f"{name}.fc1", x, wide))
        return linear(f"{name}.fc2", y, narrow)

    def glu(self, name: str, x: Node) -> Node:
        linear, wide, narrow = self.sizes(name, x)
        a, b = self.halves(linear(f"{name}.fc1", x, wide), 1 if "token" in name else 2)
        y = self.add("multiply", f"{name}.gated", a, self.activation(f"{name}.act", b))
        return linear(f"{name}.fc2", y, narrow)

    def sizes(self, name: str, x: Node) -> tuple[Callable[[str, Node, int], Node], int, int]:
        """The kind of linear map of an MLP, and the widths inside and outside of it."""
        if name.endswith("token_mixing"):
            return self.token_linear, self.config.tokens_mlp_dim, x.shape[0]
        return self.linear, self.config.channels_mlp_dim, x.shape[1]

    def linear(self, name: str, x: Node, width: int) -> Node:
        return self.add("linear", name, x, shape=(*x.shape[:-1], width))

    def token_linear(self, name: str, x: Node, width: int) -> Node:
        return self.add("token_linear", name, x, shape=(width, x.shape[1]))

    def norm(self, name: str, x: Node, eps: float | None = None) -> Node:
        return self.add("layer_norm", name, x, eps=eps or self.config.layer_norm_eps)

    def activation(self, name: str, x: Node) -> Node:
        return self.add("activation", name, x, form=self.config.hidden_act)

    def halves(self, x: Node, axis: int) -> tuple[Node, Node]:
        S, C = x.shape
        shape = (S // 2, C) if axis == 1 else (S, C // 2)
        first = self.add("half", f"{x.name}.first", x, shape=shape, axis=axis, index=0)
        return first, self.add("half", f"{x.name}.second", x, shape=shape, axis=axis, index=1)

    def add(
        self, op: Op, name: str, *inputs: Node, shape: tuple[int, ...] = (), **values: Any
    ) -> Node:
        """A node, of the shape of its first input unless another is given."""
        names = tuple(node.name for node in inputs)
        node = Node(op, name, names, shape or inputs[0].shape, **values)
        self.nodes.append(node)
        return node


def _parameters(model: MlpMixer) -> Iterable[tuple[str, mx.array]]:
    return tree_flatten(model.parameters())  # type: ignore[return-value]  # a list, without `to`


def _fold_preprocessing(weights: dict[str, np.ndarray], info: ModelInfo, scale: float) -> None:
    """Change the stem so that it takes `scale` * pixels, in place of normalised ones.

    (pixel / 255 - mean) / std is linear, and the stem is linear. In float64, since the sum
    over a patch would otherwise lose digits of the bias.
    """
    mean, std = np.array(info.preprocess.mean), np.array(info.preprocess.std)
    weight = weights["stem.weight"].astype(np.float64) / std
    shift = (weight * mean).sum(axis=(1, 2, 3))
    weights["stem.weight"] = (weight / (255 * scale)).astype(np.float32)
    weights["stem.bias"] = (weights["stem.bias"] - shift).astype(np.float32)
