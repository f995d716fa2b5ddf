"""Our model -> a Core ML package for Xcode, by coremltools' MIL builder, on any system.

An image classifier as Xcode and Vision know it: pixels in, label and probabilities out. The image
has the size before the centre crop, and the program cuts its centre, so that Vision's `.centerCrop`
(`.scaleFill` for models that squash) prepares what `mixer predict` sees.
"""

import contextlib
import io
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mixer_mlx.choices import CoreMLTarget, ExportPrecision
from mixer_mlx.errors import ConfigError
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.runtime.atomic import replacing_folder

from .graph import INPUT, Graph, Node

PIXEL_SCALE = 1 / 255
"""By which Core ML multiplies pixels; mean and std are in the stem. As an ImageType's bias, or as
operations of their own, coremltools would fuse them into a batch norm with an eps of 1e-5."""


def require() -> None:
    """Raise ConfigError unless coremltools can write packages here."""
    try:
        with _silence():
            import coremltools  # noqa: F401
            from coremltools.libmilstoragepython import _BlobStorageWriter  # noqa: F401
    except ImportError as error:
        if sys.version_info >= (3, 14):
            raise ConfigError(
                "coremltools has no release for Python 3.14 yet; export with Python 3.11, 3.12 or "
                "3.13 and the extra `coreml`."
            ) from error
        raise ConfigError(
            "Core ML packages need the extra `coreml`; pip install 'mixer-mlx[coreml]'."
        ) from error


def write(path: Path, graph: Graph, precision: ExportPrecision, target: CoreMLTarget) -> None:
    """Write the package, a folder. Raises OSError."""
    with replacing_folder(path) as temporary:
        with _silence():
            model = build(graph, precision, target)
            inner = temporary / "model.mlpackage"
            _save(model, inner)
        for entry in list(inner.iterdir()):
            entry.rename(temporary / entry.name)
        inner.rmdir()
        mode = temporary.stat().st_mode  # coremltools makes files for their owner alone
        for entry in temporary.rglob("*"):
            entry.chmod(mode if entry.is_dir() else mode & 0o666)


def _save(model: Any, path: Path) -> None:
    """Save the package; of the faults of several files, the first is raised."""
    try:
        model.save(str(path))
    except shutil.Error as error:
        raise OSError(error.args[0][0][-1].partition(": '")[0]) from error


def build(graph: Graph, precision: ExportPrecision, target: CoreMLTarget) -> Any:
    """The model as coremltools has it in memory."""
    import coremltools as ct

    image = graph.input == "image"
    name = "image" if image else "input"
    shape = image_shape(graph) if image else (1, *graph.input_shape)
    program = _program(graph, name, shape, target)
    given: dict[str, Any] = {}
    if image:
        layout = ct.colorlayout.RGB if graph.input_shape[2] == 3 else ct.colorlayout.GRAYSCALE
        given["inputs"] = [
            ct.ImageType(name, image_shape(graph), scale=PIXEL_SCALE, color_layout=layout)
        ]
    if graph.info.config.num_classes:
        given["classifier_config"] = ct.ClassifierConfig(
            class_labels(graph.info), predicted_probabilities_output=graph.output
        )
    model = ct.convert(
        program,
        convert_to="mlprogram",
        compute_precision=getattr(ct.precision, precision.upper()),
        minimum_deployment_target=getattr(ct.target, target),
        compute_units=ct.ComputeUnit.ALL,
        skip_model_load=True,
        **given,
    )
    _describe(model, graph, name)
    return model


def image_shape(graph: Graph) -> tuple[int, int, int, int]:
    """(1, channels, height, width) of the image that the program takes, before the crop."""
    height, width = graph.info.preprocess.target_size
    return (1, graph.input_shape[2], height, width)


def class_labels(info: ModelInfo) -> list[str]:
    """Text that tells the classes apart, as the keys of Core ML's dictionary must."""
    labels = info.labels or tuple(map(str, range(info.config.num_classes)))
    texts = [label.encode("utf-8", "backslashreplace").decode() for label in labels]
    return [
        f"{text} ({index})" if texts.count(text) > 1 else text for index, text in enumerate(texts)
    ]


def _program(graph: Graph, name: str, shape: tuple[int, ...], target: CoreMLTarget) -> Any:
    import coremltools as ct
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import Function, Program

    with Function(
        {name: Builder.TensorSpec(shape=shape)}, opset_version=getattr(ct.target, target)
    ) as function:
        values = {INPUT: function.inputs[name]}
        for node in graph.nodes:
            result = graph.output if node is graph.nodes[-1] else node.name
            inputs = [values[i] for i in node.inputs]
            values[node.name] = _WRITERS[node.op](Builder, graph, node, inputs, result)
        function.set_outputs([values[graph.nodes[-1].name]])
    program = Program()
    program.add_function("main", function)
    return program


def _patches(mb: Any, graph: Graph, node: Node, inputs: list[Any], name: str) -> Any:
    config, (x,) = graph.info.config, inputs
    (rows, columns), P, channels = config.grid_size, config.patch_size, config.in_channels
    if graph.input == "image":  # (1, channels, H, W)
        x = _centre(mb, graph, x)
        x = mb.reshape(x=x, shape=(channels, rows, P, columns, P))
        x = mb.transpose(x=x, perm=(1, 3, 2, 4, 0))
    else:
        x = mb.reshape(x=x, shape=(rows, P, columns, P, channels))
        x = mb.transpose(x=x, perm=(0, 2, 1, 3, 4))
    return mb.reshape(x=x, shape=(1, *node.shape), name=name)


def _centre(mb: Any, graph: Graph, x: Any) -> Any:
    """The crop that `Preprocess` makes of a resized image."""
    height, width = image_shape(graph)[2:]
    H, W, channels = graph.input_shape
    top, left = round((height - H) / 2), round((width - W) / 2)
    if (height, width) == (H, W):
        return x
    end = (1, channels, top + H, left + W)
    return mb.slice_by_index(x=x, begin=(0, 0, top, left), end=end, name="centre")


def _linear(mb: Any, graph: Graph, node: Node, inputs: list[Any], name: str) -> Any:
    weight, bias = graph.weight_and_bias(node)
    return mb.linear(x=inputs[0], weight=weight, bias=bias, name=name)


def _token_linear(mb: Any, graph: Graph, node: Node, inputs: list[Any], name: str) -> Any:
    weight, bias = graph.weight_and_bias(node)
    return mb.add(x=mb.matmul(x=weight, y=inputs[0]), y=bias[:, None], name=name)


def _layer_norm(mb: Any, graph: Graph, node: Node, inputs: list[Any], name: str) -> Any:
    gamma, beta = graph.weight_and_bias(node)
    eps = np.float32(node.eps)
    return mb.layer_norm(x=inputs[0], axes=[-1], gamma=gamma, beta=beta, epsilon=eps, name=name)


def _affine(mb: Any, graph: Graph, node: Node, inputs: list[Any], name: str) -> Any:
    weight, bias = graph.weight_and_bias(node)
    return mb.add(x=mb.mul(x=inputs[0], y=weight), y=bias, name=name)


def _scale(mb: Any, graph: Graph, node: Node, inputs: list[Any], name: str) -> Any:
    return mb.mul(x=inputs[0], y=graph.weights[node.name], name=name)


def _activation(mb: Any, graph: Graph, node: Node, inputs: list[Any], name: str) -> Any:
    if node.form == "silu":
        return mb.silu(x=inputs[0], name=name)
    mode = {"gelu": "EXACT", "gelu_tanh": "TANH_APPROXIMATION"}[node.form]
    return mb.gelu(x=inputs[0], mode=mode, name=name)


def _half(mb: Any, graph: Graph, node: Node, inputs: list[Any], name: str) -> Any:
    begin, end = [0, 0, 0], [1, *node.shape]
    width = node.shape[node.axis - 1]
    begin[node.axis], end[node.axis] = node.index * width, (node.index + 1) * width
    return mb.slice_by_index(x=inputs[0], begin=begin, end=end, name=name)


_WRITERS: dict[str, Callable[[Any, Graph, Node, list[Any], str], Any]] = {
    "patches": _patches,
    "linear": _linear,
    "token_linear": _token_linear,
    "layer_norm": _layer_norm,
    "affine": _affine,
    "scale": _scale,
    "activation": _activation,
    "half": _half,
    "add": lambda mb, _, __, inputs, name: mb.add(x=inputs[0], y=inputs[1], name=name),
    "multiply": lambda mb, _, __, inputs, name: mb.mul(x=inputs[0], y=inputs[1], name=name),
    "mean": lambda mb, _, __, inputs, name: mb.reduce_mean(x=inputs[0], axes=[1], name=name),
    "softmax": lambda mb, _, __, inputs, name: mb.softmax(x=inputs[0], axis=-1, name=name),
}


def _describe(model: Any, graph: Graph, name: str) -> None:
    """What Xcode shows, and the model's origin and preprocessing as JSON."""
    info, (H, W, channels) = graph.info, graph.input_shape
    source = {key: str(value) for key, value in info.source.items()}
    model.short_description = f"{info.config.variant_name or 'MLP-Mixer'}, image classifier."
    model.author = source.get("author", source.get("name", ""))
    model.license = source.get("license", "")
    model.version = source.get("revision", "") or f"mixer-mlx {version('mixer-mlx')}"
    if name == "image":
        height, width = image_shape(graph)[2:]
        model.input_description[name] = (
            f"Image of {width} x {height} pixels, of which the centre, {W} x {H}, is classified."
        )
    else:
        model.input_description[name] = (
            f"Normalised pixels, (1, {H}, {W}, {channels}); see preprocess in the metadata."
        )
    for key, value in (
        ("preprocess", info.preprocess.to_dict()),
        ("config", info.config.to_dict()),
        ("source", dict(info.source)),
    ):
        model.user_defined_metadata[f"mixer_mlx.{key}"] = json.dumps(value)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """coremltools draws progress bars and reports optional libraries that it doesn't find."""
    nowhere = io.StringIO()
    with (
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
