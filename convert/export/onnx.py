"""Our model -> an ONNX file, by onnx.helper.

IR 10 and opset 20 are the oldest that have Gelu and LayerNormalization as operations; onnx's own
defaults are newer than most runtimes.
"""

import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixer_mlx.choices import ExportWeights
from mixer_mlx.errors import ConfigError
from mixer_mlx.runtime.atomic import replacing_file

from .graph import INPUT, Graph, Node

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

IR_VERSION, OPSET = 10, 20

MAX_BYTES = 2**31 - 2**20
"""Above this size weights are in a file of their own: protobuf ends at 2 GiB."""


def require() -> None:
    """Raise ConfigError without the package onnx."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "ONNX files need the extra `onnx`; pip install 'mixer-mlx[onnx]'."
        ) from error


def write(path: Path, graph: Graph, weights: ExportWeights = "float32") -> None:
    """Write `path`, and `path`.data beside it if the weights are too large for one file.

    `weights` is what matrices are stored as; runtimes compute in float32. Raises OSError.
    """
    model = build(graph, weights)
    tensors = model.graph.initializer
    with ExitStack() as stack:
        if sum(len(tensor.raw_data) for tensor in tensors) > MAX_BYTES:
            name = data_file(path).name
            data = stack.enter_context(replacing_file(data_file(path)))
            _move_out(tensors, data, name)
        temporary = stack.enter_context(replacing_file(path))
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def data_file(path: Path) -> Path:
    """Where the weights of a model are that is too large for one file."""
    return path.with_name(f"{path.name}.data")


def build(graph: Graph, weights: ExportWeights = "float32") -> "ModelProto":
    """The model as a protobuf message, checked by nobody yet."""
    from onnx import helper

    content = _Content(graph, weights)
    for node in graph.nodes:
        _WRITERS[node.op](content, node)
    content.rename(graph.nodes[-1].name, graph.output)
    model = helper.make_model(
        content.proto,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="mixer-mlx",
        producer_version=version("mixer-mlx"),
        doc_string=_description(graph),
    )
    helper.set_model_props(model, _metadata(graph))
    return model


class _Content:
    """What becomes the file's graph; `x` in `add` is the name of a value."""

    def __init__(self, graph: Graph, weights: ExportWeights):
        from onnx import TensorProto, helper

        self.graph, self.stored_as = graph, weights
        dtype = TensorProto.UINT8 if graph.input == "image" else TensorProto.FLOAT
        batch = "batch"
        name = "image" if graph.input == "image" else "input"
        self.input = helper.make_tensor_value_info(name, dtype, [batch, *graph.input_shape])
        output = helper.make_tensor_value_info(
            graph.output, TensorProto.FLOAT, [batch, *graph.output_shape]
        )
        self.proto: GraphProto = helper.make_graph([], "mlp_mixer", [self.input], [output])

    def add(self, op: str, inputs: list[str], name: str, **attributes: object) -> str:
        from onnx import helper

        node: NodeProto = helper.make_node(op, inputs, [name], name=name, **attributes)
        self.proto.node.append(node)
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        self.proto.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def value(self, name: str) -> str:
        """The name of what a node reads."""
        return self.input.name if name == INPUT else name

    def weight(self, name: str, *, transposed: bool = False) -> str:
        """A matrix (out, in), or (in, out) if transposed, as it is to be stored."""
        value, axis = self.graph.weights[name], 0
        if transposed:
            value, axis = value.T, 1
        if self.stored_as == "float16":
            from onnx import TensorProto

            stored = self.constant(name, value.astype(np.float16))
            return self.add("Cast", [stored], f"{name}.float32", to=TensorProto.FLOAT)
        if self.stored_as == "int8":
            scale = _channel_scales(value, axis)
            rounded = np.rint(value / np.expand_dims(scale, 1 - axis)).astype(np.int8)
            inputs = [self.constant(name, rounded), self.constant(f"{name}.scale", scale)]
            return self.add("DequantizeLinear", inputs, f"{name}.float32", axis=axis)
        return self.constant(name, value)

    def vector(self, name: str, shape: tuple[int, ...] = (-1,)) -> str:
        return self.constant(name, self.graph.weights[name].reshape(shape))

    def rename(self, old: str, new: str) -> None:
        """Call the result of the last node otherwise."""
        for node in self.proto.node:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = new


def _channel_scales(matrix: np.ndarray, axis: int) -> np.ndarray:
    """For each output channel, on `axis`, what its largest number is 127 times as large as."""
    largest = np.abs(matrix).max(axis=1 - axis)
    return np.where(largest > 0, largest / 127, 1e-9).astype(np.float32)


def _patches(content: _Content, node: Node) -> None:
    from onnx import TensorProto

    config, name = content.graph.info.config, content.value(node.inputs[0])
    (rows, columns), P = config.grid_size, config.patch_size
    if content.graph.input == "image":
        name = content.add("Cast", [name], "pixels", to=TensorProto.FLOAT)
    grid = content.constant("grid", np.array([0, rows, P, columns, P, config.in_channels]))
    name = content.add("Reshape", [name, grid], "cut")
    name = content.add("Transpose", [name], "sorted", perm=[0, 1, 3, 2, 4, 5])
    flat = content.constant("tokens", np.array([0, *node.shape]))
    content.add("Reshape", [name, flat], node.name)


def _linear(content: _Content, node: Node) -> None:
    weight = content.weight(f"{node.name}.weight", transposed=True)
    product = content.add("MatMul", [node.inputs[0], weight], f"{node.name}.product")
    content.add("Add", [product, content.vector(f"{node.name}.bias")], node.name)


def _token_linear(content: _Content, node: Node) -> None:
    weight = content.weight(f"{node.name}.weight")
    product = content.add("MatMul", [weight, node.inputs[0]], f"{node.name}.product")
    content.add("Add", [product, content.vector(f"{node.name}.bias", (-1, 1))], node.name)


def _layer_norm(content: _Content, node: Node) -> None:
    vectors = [content.vector(f"{node.name}.{part}") for part in ("weight", "bias")]
    inputs = [node.inputs[0], *vectors]
    content.add("LayerNormalization", inputs, node.name, axis=-1, epsilon=node.eps)


def _affine(content: _Content, node: Node) -> None:
    weight, bias = (content.vector(f"{node.name}.{part}") for part in ("weight", "bias"))
    product = content.add("Mul", [node.inputs[0], weight], f"{node.name}.product")
    content.add("Add", [product, bias], node.name)


def _scale(content: _Content, node: Node) -> None:
    weight = content.constant(f"{node.name}.weight", content.graph.weights[node.name])
    content.add("Mul", [node.inputs[0], weight], node.name)


def _activation(content: _Content, node: Node) -> None:
    x = node.inputs[0]
    if node.form == "silu":  # Swish came with opset 24
        content.add("Mul", [x, content.add("Sigmoid", [x], f"{node.name}.sigmoid")], node.name)
    else:
        form = {"gelu": "none", "gelu_tanh": "tanh"}[node.form]
        content.add("Gelu", [x], node.name, approximate=form)


def _half(content: _Content, node: Node) -> None:
    width = node.shape[node.axis - 1]
    bounds = [np.array([value]) for value in (node.index * width, (node.index + 1) * width)]
    places = [*bounds, np.array([node.axis])]
    names = [content.constant(f"{node.name}.{i}", place) for i, place in enumerate(places)]
    content.add("Slice", [node.inputs[0], *names], node.name)


def _add(content: _Content, node: Node) -> None:
    content.add("Add", list(node.inputs), node.name)


def _multiply(content: _Content, node: Node) -> None:
    content.add("Mul", list(node.inputs), node.name)


def _mean(content: _Content, node: Node) -> None:
    axes = content.constant("token_axis", np.array([1]))
    content.add("ReduceMean", [node.inputs[0], axes], node.name, keepdims=0)


def _softmax(content: _Content, node: Node) -> None:
    content.add("Softmax", [node.inputs[0]], node.name, axis=-1)


_WRITERS: dict[str, Callable[[_Content, Node], None]] = {
    "patches": _patches,
    "linear": _linear,
    "token_linear": _token_linear,
    "layer_norm": _layer_norm,
    "affine": _affine,
    "scale": _scale,
    "activation": _activation,
    "half": _half,
    "add": _add,
    "multiply": _multiply,
    "mean": _mean,
    "softmax": _softmax,
}


def _description(graph: Graph) -> str:
    H, W, channels = graph.input_shape
    colours = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    kind = "uint8 pixels" if graph.input == "image" else "normalised float32 pixels"
    return f"MLP-Mixer; input: {kind}, {colours}, (batch, {H}, {W}, {channels})."


def _metadata(graph: Graph) -> dict[str, str]:
    """What a program that runs the model may want to know, as JSON."""
    info = graph.info
    values = {
        "labels": list(info.labels),
        "preprocess": info.preprocess.to_dict(),
        "config": info.config.to_dict(),
        "source": dict(info.source),
    }
    return {key: json.dumps(value, allow_nan=False) for key, value in values.items()}


def _move_out(tensors: "Iterable[TensorProto]", path: Path, name: str) -> None:
    """Move the data of tensors to the file `path`, which the model will find as `name`."""
    from onnx import TensorProto

    with path.open("wb") as file:
        for tensor in tensors:
            if len(tensor.raw_data) < 1024:  # shapes must stay, for shape inference
                continue
            entries = {"location": name, "offset": file.tell(), "length": len(tensor.raw_data)}
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
