"""Core ML programs in NumPy: the package as saved, without a Mac.

coremltools' own loader reads the specification and the weights back; every operation here follows
Apple's definition of it (coremltools' MIL op documentation), in float64, whatever the program's
dtype. Knows only what Mixers are made of, and raises KeyError for anything else.
"""

import contextlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np


def load(package: Path) -> tuple[Any, Any]:
    """The specification of a saved package, and its program."""
    with contextlib.redirect_stderr(io.StringIO()):  # it reports what it doesn't find on Linux
        import coremltools as ct
        from coremltools.converters.mil.frontend.milproto.load import load as load_program

        model = ct.models.MLModel(str(package), skip_model_load=True)
        spec = model.get_spec()
        program = load_program(
            spec,
            specification_version=spec.specificationVersion,
            file_weights_dir=model.weights_dir,
        )
    return spec, program


def run(package: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Every value by name, for one image (1, channels, H, W) or array as the program takes it.

    An image has values of 0 to 255, and is scaled as its description in the program says.
    """
    _, program = load(package)
    function = program.functions["main"]
    ((name, _),) = function.inputs.items()
    values: dict[str, np.ndarray] = {name: pixels.astype(np.float64)}
    for op in function.operations:
        if op.op_type == "const":
            values[op.outputs[0].name] = _plain(op.outputs[0].val)
        elif op.op_type != "classify":
            inputs = {key: _input(var, values) for key, var in op.inputs.items()}
            values[op.outputs[0].name] = OPS[op.op_type](**inputs)
    return values


def _input(var: Any, values: dict[str, np.ndarray]) -> Any:
    if isinstance(var, list | tuple):
        return [_input(each, values) for each in var]
    return values[var.name] if var.name in values else _plain(var.val)


def _plain(value: Any) -> Any:
    return value.astype(np.float64) if getattr(value, "dtype", None) == np.float16 else value


def _gelu(x: np.ndarray, mode: str) -> np.ndarray:
    if mode == "TANH_APPROXIMATION":
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    assert mode == "EXACT"
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _layer_norm(
    x: np.ndarray, axes: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float
) -> np.ndarray:
    axes = tuple(axes)
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + epsilon) * gamma + beta


def _slice(x: np.ndarray, begin: np.ndarray, end: np.ndarray, **masks: object) -> np.ndarray:
    assert not any(np.any(mask) for mask in masks.values())
    return x[tuple(slice(a, b) for a, b in zip(begin, end, strict=True))]


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def _matmul(x: np.ndarray, y: np.ndarray, transpose_x: bool, transpose_y: bool) -> np.ndarray:
    assert not transpose_x
    assert not transpose_y
    return x @ y


OPS = {
    "add": lambda x, y: x + y,
    "mul": lambda x, y: x * y,
    "linear": lambda x, weight, bias: x @ weight.T + bias,
    "matmul": _matmul,
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": lambda x, perm: x.transpose(perm),
    "slice_by_index": _slice,
    "layer_norm": _layer_norm,
    "gelu": _gelu,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "reduce_mean": lambda x, axes, keep_dims: x.mean(tuple(axes), keepdims=bool(keep_dims)),
    "softmax": _softmax,
    "cast": lambda x, dtype: x,
}
