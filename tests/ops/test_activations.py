"""Both forms of GELU, and SiLU, against their definitions in float64."""

import io
import math
import os
import re
import shutil
from collections.abc import Callable
from typing import get_args

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mixer_mlx.choices import HiddenAct
from mixer_mlx.ops.activations import ACTIVATIONS, gelu, gelu_tanh, silu
from mixer_mlx.runtime.tuning import COMPILE_GELU_FROM

ON_GPU = mx.default_device().type == mx.DeviceType.gpu
COMPILES = (ON_GPU or shutil.which("g++")) and "MLX_DISABLE_COMPILE" not in os.environ
needs_compiler = pytest.mark.skipif(not COMPILES, reason="NOT RUN: MLX can't compile here")

Function = Callable[[mx.array], mx.array]
MAGNITUDES = [1e-40, 1e-30, 1e-9, 1e-4, 4.5, 5.0, 5.5, 6.3, 40.0, 3e3, 1e5, 1e10, 1e20, 3.4e38]
EDGES = [0.0, -0.0, *MAGNITUDES, *(-m for m in MAGNITUDES)]
GRID = np.concatenate([np.linspace(-12, 12, 24001), EDGES]).astype(np.float32)


def erf_phi(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The normal distribution and its density."""
    phi = np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x])
    return phi, np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def tanh_phi(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the tanh form puts in the place of the normal distribution, and its derivative."""
    scale = math.sqrt(2 / math.pi)
    t = np.tanh(scale * (x + 0.044715 * x**3))
    return (1 + t) / 2, (1 - t * t) / 2 * scale * (1 + 3 * 0.044715 * x * x)


def logistic(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logistic distribution, which SiLU has in that place, and its density."""
    phi = (1 + np.tanh(x / 2)) / 2
    return phi, phi * (1 - phi)


PHI = {"gelu": erf_phi, "gelu_tanh": tanh_phi, "silu": logistic}


def definition(name: str, x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x * PHI[name](x)[0]


def derivative(name: str, x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    phi, density = PHI[name](x)
    return phi + x * density


def eager(function: Function) -> Function:
    return function


modes = pytest.mark.parametrize("mode", [eager, mx.compile], ids=["eager", "compiled"])
forms = pytest.mark.parametrize("name", ACTIVATIONS)
gelus = pytest.mark.parametrize("name", ["gelu", "gelu_tanh"])


def operations(*arrays: mx.array) -> list[str]:
    """The names of the primitives that make these arrays; a fused kernel is one, "Compiled..."."""
    dot = io.StringIO()
    mx.export_to_dot(dot, *arrays)
    return re.findall(r'label ="(\w+)", shape=rectangle', dot.getvalue())


def test_the_forms_are_those_of_the_config() -> None:
    assert set(ACTIVATIONS) == set(get_args(HiddenAct))
    assert [ACTIVATIONS[name] for name in PHI] == [gelu, gelu_tanh, silu]


@forms
@modes
def test_value(name: str, mode: Callable[[Function], Function]) -> None:
    y = np.array(mode(ACTIVATIONS[name])(mx.array(GRID)))
    error = np.abs(y.astype(np.float64) - definition(name, GRID))
    bound = 2e-6 if name == "silu" else 1e-6
    assert (error <= np.maximum(bound, np.spacing(np.abs(GRID)))).all()


@gelus
def test_saturation_is_exact(name: str) -> None:
    far = np.linspace(7, 1000, 5000, dtype=np.float32)
    assert (np.array(ACTIVATIONS[name](mx.array(far))) == far).all()
    assert (np.array(ACTIVATIONS[name](mx.array(-far))) == 0).all()


@forms
@modes
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_is_rounded_once(
    name: str, mode: Callable[[Function], Function], dtype: mx.Dtype
) -> None:
    exponent = 0x7C00 if dtype == mx.float16 else 0x7F80
    bits = np.arange(2**16, dtype=np.uint16)
    every_finite = mx.array(bits[bits & exponent != exponent]).view(dtype)
    result = mode(ACTIVATIONS[name])(every_finite)
    assert result.dtype == dtype
    x, y = (np.array(v.astype(mx.float32), dtype=np.float64) for v in (every_finite, result))
    exact = definition(name, x)
    digits, smallest = (11, -24) if dtype == mx.float16 else (8, -133)
    spacing = 2.0 ** np.maximum(np.frexp(exact)[1] - digits, smallest)
    assert (np.abs(y - exact) <= spacing / 2 + 1e-6).all()


@forms
@modes
def test_infinity_and_nan(name: str, mode: Callable[[Function], Function]) -> None:
    for dtype in (mx.float32, mx.float16, mx.bfloat16):
        x = mx.array([math.inf, -math.inf, math.nan], dtype=dtype)
        assert str(mode(ACTIVATIONS[name])(x).tolist()) in ("[inf, 0.0, nan]", "[inf, -0.0, nan]")


@forms
@modes
def test_gradient(name: str, mode: Callable[[Function], Function]) -> None:
    x = np.concatenate([np.linspace(-8, 8, 16001), EDGES]).astype(np.float32)
    weights = np.random.default_rng(0).uniform(0.5, 1, x.size).astype(np.float32)
    weighted = mx.grad(lambda v: (mx.array(weights) * ACTIVATIONS[name](v)).sum())
    slope = np.array(mode(weighted)(mx.array(x))) / weights
    assert np.abs(slope - derivative(name, x)).max() < 5e-6


@forms
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=["float16", "bfloat16"])
def test_gradient_in_half_precision(name: str, dtype: mx.Dtype) -> None:
    x = mx.linspace(-8, 8, 1001).astype(dtype)
    slope = mx.grad(lambda v: ACTIVATIONS[name](v).astype(mx.float32).sum())(x)
    assert slope.dtype == dtype
    exact = derivative(name, np.array(x.astype(mx.float32)))
    half_spacing = 2.0**-11 if dtype == mx.float16 else 2.0**-8
    assert np.abs(np.array(slope.astype(mx.float32)) - exact).max() < half_spacing + 5e-6


def test_the_forms_differ_by_as_much_as_they_should() -> None:
    x = mx.array(GRID)
    difference = mx.abs(gelu(x) - gelu_tanh(x)).max().item()
    assert difference == pytest.approx(4.73e-4, abs=5e-6)


@forms
def test_shape_and_layout(name: str) -> None:
    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    y = np.array(ACTIVATIONS[name](mx.array(x.transpose(1, 2, 0)).transpose(2, 0, 1)))
    np.testing.assert_allclose(y, definition(name, x.ravel()).reshape(4, 2, 3), atol=1e-6, rtol=0)


@gelus
def test_no_slow_library_function_is_called(name: str) -> None:
    slow = re.compile("Erf|Tanh|Exp(?!and)|Sigmoid|Log|Power")
    x = mx.ones(8)
    assert any(slow.search(op) for op in operations(nn.gelu(x)))
    made = operations(ACTIVATIONS[name](x), mx.grad(lambda v: ACTIVATIONS[name](v).sum())(x))
    assert "CustomTransforms" in made
    assert not [op for op in made if slow.search(op)]


@needs_compiler
@forms
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
def test_value_and_gradient_are_one_kernel_each(name: str, dtype: mx.Dtype) -> None:
    @mx.compile
    def step(x: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
        (y,), (slope,) = mx.vjp(ACTIVATIONS[name], [x], [cotangent])
        return y, slope

    x = mx.ones(8, dtype=dtype)
    mx.eval(x)
    # Two kernels that share nothing: CustomTransforms computes nothing.
    kernels = [op for op in operations(*step(x, x)) if op != "CustomTransforms"]
    assert [op[:8] for op in kernels] == ["Compiled", "Compiled"]


@needs_compiler
@forms
def test_only_large_arrays_are_compiled_on_the_cpu(name: str) -> None:
    def compiled(size: int) -> bool:
        x = mx.zeros(size)
        mx.eval(x)
        return any(op.startswith("Compiled") for op in operations(ACTIVATIONS[name](x)))

    assert compiled(COMPILE_GELU_FROM)
    assert compiled(COMPILE_GELU_FROM - 1) == ON_GPU
