"""GELU in two forms: `gelu` (by erf, as in timm) and `gelu_tanh` (by tanh, as in Flax). And `silu`.

Gaussian Error Linear Units, arXiv 1606.08415. The two differ by up to 4.7e-4, so a checkpoint
specifies its own.

Neither calls erf, tanh or exp: on the CPU those are library calls, and GELU would take longer than
the matrix products around it. With a = |x|, GELU is max(0, x) minus a bump, and its derivative is
a step minus another bump. A bump is a simple function of u and w times P(w)**power, where

    u = max(0, reach - a) / (a + bend)      w = min(reach, a) / (a + bend)

Both stay small, so nothing overflows. For a >= reach, u is 0 and the result exactly x or 0.
`scripts/fit_gelu.py` computes the coefficients.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import mlx.core as mx

from mixer_mlx.runtime.backend import gpu_is_default
from mixer_mlx.runtime.tuning import COMPILE_GELU_FROM

from .plain import plain

_local = threading.local()


class _Fit(NamedTuple):
    """A bump: P's coefficients in ascending powers of w; the derivative's bump is 0 at w = zero."""

    reach: float
    bend: float
    power: int
    coefficients: tuple[float, float, float, float, float, float]
    zero: float = 0.0


# In float32, over all x, the error is up to 6.4e-7 (erf) and 7.6e-7 (tanh), and up to 3.2e-6 in the
# derivatives.
_ERF = _Fit(5.738, 13.794, 8, (1.768803, 0.04681318, -11.95056, -39.56906, -38.4185, 542.2462))
_ERF_SLOPE = _Fit(
    5.515, 13.322, 8, (1.648794, 0.8851775, -12.24918, -46.91275, -25.72212, 509.3037), 0.05341784
)
_TANH = _Fit(5.114, 8.81, 3, (2.824026, 2.011056, -18.20344, -68.48413, -98.2674, 688.3066))
_TANH_SLOPE = _Fit(
    5.092, 7.216, 3, (2.199005, 2.865901, -9.894238, -44.79407, -120.6718, 439.38), 0.09442995
)


def _power(p: mx.array, n: int) -> mx.array:
    if n == 1:
        return p
    return _power(p * p, n // 2) if n % 2 == 0 else p * _power(p, n - 1)


def _bump(a: mx.array, fit: _Fit) -> tuple[mx.array, mx.array, mx.array]:
    """u, w and P(w)**power for a = |x|.

    Two traps of MLX's compiled CPU kernels determine this form. A value clipped at a constant must
    first be combined with a varying one, here the reciprocal: otherwise g++ splits the loop at the
    clip and can't vectorise it, which is three times slower. And a kernel has at most 11 operations
    in sequence: with another order of this sum it is split.
    """
    reciprocal = 1.0 / (a + fit.bend)
    u = mx.maximum(0.0, fit.reach - a) * reciprocal
    w = mx.minimum(fit.reach, a) * reciprocal
    w2 = w * w
    w4 = w2 * w2
    c = fit.coefficients
    p = ((c[5] * (w4 * w) + c[4] * w4) + (c[0] + c[1] * w)) + w2 * (c[2] + c[3] * w)
    return u, w, _power(p, fit.power)


def _value(x: mx.array, fit: _Fit) -> mx.array:
    wide = x.astype(mx.float32)
    u, w, p = _bump(mx.abs(wide), fit)
    y = mx.maximum(0.0, wide) - p * ((u * u) * (u * w))
    return y.astype(x.dtype)


def _slope(x: mx.array, cotangent: mx.array, fit: _Fit) -> mx.array:
    """The derivative at x times the cotangent."""
    # Not mx.abs(x), nor x as float32: a compiled training step would share that array with the
    # forward pass, which would keep it in memory and compute it by a separate kernel.
    sign = mx.sign(x)
    u, w, p = _bump((sign * x).astype(mx.float32), fit)
    sign, ct = sign.astype(mx.float32), cotangent.astype(mx.float32)
    y = (0.5 + 0.5 * sign) * ct - p * ((u * u * (fit.zero - w)) * (sign * ct))
    return y.astype(x.dtype)


@contextmanager
def compiled_activations() -> Iterator[None]:
    """Within it, this thread's activations are compiled for arrays of any size."""
    before = getattr(_local, "compiled", False)
    _local.compiled = True
    try:
        yield
    finally:
        _local.compiled = before


def _worth_compiling(x: mx.array) -> bool:
    return gpu_is_default() or x.size >= COMPILE_GELU_FROM or getattr(_local, "compiled", False)


def _compiled_where_worthwhile(
    formula: Callable[..., mx.array],
) -> Callable[..., mx.array]:
    # Not shapeless, which would be two to four times slower.
    compiled = mx.compile(formula)

    def run(x: mx.array, *others: mx.array) -> mx.array:
        return (compiled if _worth_compiling(x) else formula)(x, *others)

    return run


def _activation(
    value: Callable[[mx.array], mx.array], slope: Callable[[mx.array, mx.array], mx.array]
) -> Callable[[mx.array], mx.array]:
    """The function `value` with a custom derivative: `slope` of x and the cotangent.

    MLX's own derivative of GELU's formula would be 20 kernels instead of one, and a training step
    would keep 20 arrays of x's size instead of only x.
    """
    derivative = _compiled_where_worthwhile(slope)
    function = mx.custom_function(_compiled_where_worthwhile(value))
    function.vjp(lambda x, ct, _: derivative(x, ct))
    chosen = cast(Callable[[mx.array], mx.array], function)
    return lambda x: value(x) if plain() else chosen(x)


def _fitted(value: _Fit, slope: _Fit) -> Callable[[mx.array], mx.array]:
    return _activation(lambda x: _value(x, value), lambda x, ct: _slope(x, ct, slope))


def _silu_value(x: mx.array) -> mx.array:
    wide = x.astype(mx.float32)
    return (mx.maximum(-100.0, wide) * mx.sigmoid(wide)).astype(x.dtype)  # -inf times 0 is NaN


def _silu_slope(x: mx.array, cotangent: mx.array) -> mx.array:
    # By -x and tanh, which share no array with the value; see `_slope`. The derivative of SiLU is
    # s + x s (1 - s), with s the logistic function.
    minus = (-x).astype(mx.float32)
    t = mx.tanh(0.5 * minus)
    slope = (0.5 - 0.5 * t) - (0.25 * minus) * (1 - t * t)
    return (cotangent.astype(mx.float32) * slope).astype(x.dtype)


_gelu = _fitted(_ERF, _ERF_SLOPE)
_gelu_tanh = _fitted(_TANH, _TANH_SLOPE)
_silu = _activation(_silu_value, _silu_slope)


def gelu(x: mx.array) -> mx.array:
    """x Phi(x), with Phi the normal distribution, for a float array of any shape and dtype.

    Within 1e-6 of the exact value, or one float32 spacing if that is larger; the derivative is
    within 5e-6. Half precision is computed in float32 and rounded once. inf gives inf, -inf 0.
    """
    return _gelu(x)


def gelu_tanh(x: mx.array) -> mx.array:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))) / 2; otherwise like `gelu`."""
    return _gelu_tanh(x)


def silu(x: mx.array) -> mx.array:
    """x times the logistic function of x (arXiv 1702.03118), for any shape and dtype.

    Within 2e-6 of the exact value, or one float32 spacing if that is larger; otherwise like `gelu`.
    """
    return _silu(x)


ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
}
