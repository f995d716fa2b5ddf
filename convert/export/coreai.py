"""Our model -> a Core AI asset (.aimodel, macOS and iOS 27), by Apple's package coreai-core.

Experimental: the package is a beta, whose interface may change with each version, so one is pinned
(the extra `coreai`). Its runtime also runs on Linux, where tests compare logits.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from mixer_mlx.errors import ConfigError
from mixer_mlx.runtime.atomic import replacing_folder

from .graph import INPUT, Graph, Node

FUNCTION = "main"
PROGRAM_FILE = "main.mlirb"


def require() -> None:
    """Raise ConfigError unless coreai-core is here."""
    try:
        import coreai.authoring  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "Core AI assets need the extra `coreai`, for Macs with Apple silicon and for Linux; "
            "pip install 'mixer-mlx[coreai]'."
        ) from error


def write(path: Path, graph: Graph) -> None:
    """Write the asset, a folder. Raises OSError."""
    from coreai.authoring import AIProgram

    _check_space(path, graph)
    program = AIProgram(build(graph))
    with replacing_folder(path) as temporary:
        inner = temporary / "model.aimodel"  # the package takes no other suffix
        try:
            program.save_asset(inner).update_metadata(lambda metadata: _describe(metadata, graph))
        except RuntimeError as error:
            raise OSError(str(error)) from error
        for entry in list(inner.iterdir()):
            entry.rename(temporary / entry.name)
        inner.rmdir()


def _check_space(path: Path, graph: Graph) -> None:
    """Raise OSError unless the weights fit: Core AI's writer ends the process on a full disk."""
    wanted = sum(value.nbytes for value in graph.weights.values()) + 2**20
    if shutil.disk_usage(path.parent).free < wanted:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def build(graph: Graph) -> Any:
    """The module as coreai-core has it in memory: one image in, one row of numbers out."""
    from coreai import authoring as ai

    given = np.uint8 if graph.input == "image" else np.float32

    def main(image: Any) -> Any:
        values = {INPUT: ai.cast(image, np.float32) if given is np.uint8 else image}
        for node in graph.nodes:
            inputs = [values[name] for name in node.inputs]
            values[node.name] = _WRITERS[node.op](ai, graph, node, *inputs)
        return values[graph.nodes[-1].name]

    types = {
        "image": ai.TensorType((1, *graph.input_shape), given),
        "return": ai.TensorType((1, *graph.output_shape), np.float32, name=graph.output),
    }
    main.__annotations__ = {name: Annotated[ai.Value, of] for name, of in types.items()}
    module = ai.Module.create()
    with module:
        ai.graph(main, provided_name=FUNCTION)
    return module


def _patches(ai: Any, graph: Graph, node: Node, x: Any) -> Any:
    config = graph.info.config
    (rows, columns), P = config.grid_size, config.patch_size
    x = ai.reshape(x, _shape(rows, P, columns, P, config.in_channels))
    x = ai.transpose(x, np.array([0, 2, 1, 3, 4], np.uint32))
    return ai.reshape(x, _shape(1, *node.shape))


def _linear(ai: Any, graph: Graph, node: Node, x: Any) -> Any:
    weight, bias = graph.weight_and_bias(node)
    x = ai.reshape(x, _shape(1, -1, weight.shape[1]))
    y = ai.broadcasting_batch_matmul(x, np.ascontiguousarray(weight.T)[None])
    return ai.reshape(ai.broadcasting_add(y, bias), _shape(1, *node.shape))


def _token_linear(ai: Any, graph: Graph, node: Node, x: Any) -> Any:
    weight, bias = graph.weight_and_bias(node)
    return ai.broadcasting_add(ai.broadcasting_batch_matmul(weight[None], x), bias[:, None])


def _layer_norm(ai: Any, graph: Graph, node: Node, x: Any) -> Any:
    axes = np.array([2], np.int32)
    centred = ai.broadcasting_sub(x, ai.reduce_mean(x, axes))
    variance = ai.reduce_mean(ai.broadcasting_mul(centred, centred), axes)
    scale = ai.rsqrt(ai.broadcasting_add(variance, np.array([node.eps], np.float32)))
    return _affine(ai, graph, node, ai.broadcasting_mul(centred, scale))


def _affine(ai: Any, graph: Graph, node: Node, x: Any) -> Any:
    weight, bias = graph.weight_and_bias(node)
    return ai.broadcasting_add(ai.broadcasting_mul(x, weight), bias)


def _scale(ai: Any, graph: Graph, node: Node, x: Any) -> Any:
    return ai.broadcasting_mul(x, graph.weights[node.name])


def _activation(ai: Any, graph: Graph, node: Node, x: Any) -> Any:
    if node.form == "silu":
        return ai.silu(x)
    return ai.gelu(x, approximate={"gelu": "none", "gelu_tanh": "tanh"}[node.form])


def _half(ai: Any, graph: Graph, node: Node, x: Any) -> Any:
    begin, end = [0, 0, 0], [1, *node.shape]
    width = node.shape[node.axis - 1]
    begin[node.axis], end[node.axis] = node.index * width, (node.index + 1) * width
    return ai.slice_(x, *(np.array(values, np.int32) for values in (begin, end, [1, 1, 1])))


def _mean(ai: Any, graph: Graph, node: Node, x: Any) -> Any:
    return ai.reshape(ai.reduce_mean(x, np.array([1], np.int32)), _shape(1, *node.shape))


def _shape(*sizes: int) -> np.ndarray:
    return np.array(sizes, np.int32)


_WRITERS: dict[str, Callable[..., Any]] = {
    "patches": _patches,
    "linear": _linear,
    "token_linear": _token_linear,
    "layer_norm": _layer_norm,
    "affine": _affine,
    "scale": _scale,
    "activation": _activation,
    "half": _half,
    "add": lambda ai, graph, node, x, y: ai.broadcasting_add(x, y),
    "multiply": lambda ai, graph, node, x, y: ai.broadcasting_mul(x, y),
    "mean": _mean,
    "softmax": lambda ai, graph, node, x: ai.softmax(x, np.int32(-1)),
}


def _describe(metadata: Any, graph: Graph) -> None:
    """What Xcode shows, and the model's origin, labels and preprocessing as JSON."""
    info = graph.info
    metadata.model_description = f"{info.config.title}, image classifier."
    metadata.author = str(info.source.get("author", info.source.get("name", "")))
    metadata.license = str(info.source.get("license", ""))
    for key, value in (
        ("labels", list(info.labels)),
        ("preprocess", info.preprocess.to_dict()),
        ("source", dict(info.source)),
        ("producer", f"mixer-mlx {version('mixer-mlx')}"),
    ):
        metadata.set_custom(f"mixer_mlx.{key}", json.dumps(value))
