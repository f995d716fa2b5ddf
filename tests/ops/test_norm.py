"""Layer norm and its derivatives against the definition in float64, for each way to compute it."""

import mlx.core as mx
import numpy as np
import pytest

from mixer_mlx.ops import norm
from mixer_mlx.ops.norm import layer_norm

EPS = 1e-6
Arrays = list[np.ndarray]


def arrays(shape: tuple[int, ...], dtype: mx.Dtype = mx.float32) -> tuple[list[mx.array], Arrays]:
    """x, weight, bias and a cotangent, and the same in float64."""
    rng = np.random.default_rng(0)
    shapes = [shape, shape[-1:], shape[-1:], shape]
    given = [mx.array(rng.standard_normal(one) + 0.5).astype(dtype) for one in shapes]
    return given, [np.array(one.astype(mx.float32), np.float64) for one in given]


def expected(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, ct: np.ndarray) -> Arrays:
    """The value, and the derivatives with respect to x, weight and bias."""
    centred = x - x.mean(-1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + EPS)
    normal, rows = centred * scale, tuple(range(x.ndim - 1))
    g = ct * weight
    mean, along = g.mean(-1, keepdims=True), (g * normal).mean(-1, keepdims=True)
    of_x = scale * (g - mean - normal * along)
    return [normal * weight + bias, of_x, (ct * normal).sum(rows), ct.sum(rows)]


def found(given: list[mx.array]) -> Arrays:
    inputs, ct = given[:3], given[3]
    (value,), of = mx.vjp(lambda x, w, b: layer_norm(x, w, b, EPS), inputs, [ct])
    assert {one.dtype for one in (value, *of)} == {ct.dtype}
    return [np.array(one.astype(mx.float32)) for one in (value, *of)]


@pytest.mark.parametrize(("least", "gpu"), [(0, False), (2**40, False), (0, True)])
def test_value_and_derivatives(least: int, gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "NORM_BY_PRODUCTS_FROM", least)
    monkeypatch.setattr(norm, "gpu_is_default", lambda: gpu)
    given, wide = arrays((3, 20, 24))
    for one, value in zip(found(given), expected(*wide), strict=True):
        assert one == pytest.approx(value, abs=3e-5)


def test_large_arrays_are_computed_by_products() -> None:
    given, wide = arrays((2, 400, 96))
    assert norm._by_products(given[0])
    for one, value in zip(found(given), expected(*wide), strict=True):
        assert abs(one - value).max() < 1e-5 * abs(value).max()


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_gradients_of_weights_in_half_precision_are_summed_in_float32(dtype: mx.Dtype) -> None:
    """Against float64: summed in the dtype, they would be off by many spacings."""
    given, wide = arrays((8, 512, 8), dtype)
    spacing = 2.0 ** (-10 if dtype == mx.float16 else -7)
    _, _, of_weight, of_bias = expected(*wide)
    _, _, weight, bias = found(given)
    assert (abs(bias - of_bias) <= 1.1 * spacing * abs(of_bias)).all()
    # Of 4096 terms, each rounded twice: their errors add up as those of a random walk.
    assert abs(weight - of_weight).max() <= spacing * (abs(of_weight).max() + 64)
    in_dtype = mx.cumsum(given[3].reshape(-1, 8), axis=0)[-1].astype(mx.float32)
    assert abs(np.array(in_dtype) - of_bias).max() > 5 * spacing * abs(of_bias).max()
