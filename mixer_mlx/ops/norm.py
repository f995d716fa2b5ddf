"""Layer norm with a derivative of its own.

On the CPU, MLX computes it from its definition; large arrays are faster with sums as matrix
products with ones. On a GPU it is one kernel, but MLX adds up the gradients of its weights and
biases in the array's dtype, where half precision loses most digits. Matrix products add up in
float32.
"""

import functools
from collections.abc import Callable
from typing import cast

import mlx.core as mx

from mixer_mlx.runtime.backend import gpu_is_default
from mixer_mlx.runtime.tuning import NORM_BY_PRODUCTS_FROM

from .linear import sum_of_rows
from .plain import plain

_Norm = Callable[[mx.array, mx.array, mx.array], mx.array]
_Arrays = tuple[mx.array, mx.array, mx.array]


def layer_norm(x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
    """x (..., C), weight and bias (C,) -> each row with mean 0 and variance 1, times weight + bias.

    Ba, Kiros and Hinton, arXiv 1607.06450; `eps` is added to the variance.
    """
    small = x.dtype == mx.float32 and not gpu_is_default() and not _by_products(x)
    if plain() or small:  # a small one would only lose by a derivative of its own
        return mx.fast.layer_norm(x, weight, bias, eps)
    return _layer_norm(eps)(x, weight, bias)


@functools.cache
def _layer_norm(eps: float) -> _Norm:
    def value(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
        if not _by_products(x):
            return mx.fast.layer_norm(x, weight, bias, eps)
        centred, scale = _centred(x, eps)
        return centred * scale * weight + bias

    def derivative(primals: _Arrays, ct: mx.array, _value: mx.array) -> _Arrays:
        x, weight, _bias = primals
        if _by_products(x):
            of_x, of_weight = _derivative(x, weight, ct, eps)
        elif x.dtype == mx.float32:
            _, gradients = mx.vjp(
                lambda x, weight: mx.fast.layer_norm(x, weight, None, eps), [x, weight], [ct]
            )
            of_x, of_weight = gradients
        else:
            values, gradients = mx.vjp(
                lambda x: mx.fast.layer_norm(x, None, None, eps), [x], [ct * weight]
            )
            of_x, of_weight = gradients[0], _over_rows(ct * values[0])
        return of_x, of_weight, _over_rows(ct)

    function = mx.custom_function(value)
    function.vjp(derivative)
    return cast(_Norm, function)


def _by_products(x: mx.array) -> bool:
    return x.dtype == mx.float32 and x.size >= NORM_BY_PRODUCTS_FROM and not gpu_is_default()


def _centred(x: mx.array, eps: float) -> tuple[mx.array, mx.array]:
    """Rows minus their mean, (..., C), and one over their standard deviation, (..., 1)."""
    mean_of = mx.full((x.shape[-1], 1), 1 / x.shape[-1])
    centred = x - x @ mean_of
    return centred, mx.rsqrt((centred * centred) @ mean_of + eps)


def _derivative(
    x: mx.array, weight: mx.array, ct: mx.array, eps: float
) -> tuple[mx.array, mx.array]:
    """The cotangents of x, (..., C), and of the weight, (C,)."""
    centred, scale = _centred(x, eps)
    normal = centred * scale
    steep = ct * normal
    mean_of = weight[:, None] * (1 / x.shape[-1])
    of_x = (ct * weight - ct @ mean_of - normal * (steep @ mean_of)) * scale
    return of_x, _over_rows(steep)


def _over_rows(x: mx.array) -> mx.array:
    """(..., C) -> (C,)."""
    return sum_of_rows(x.reshape(-1, x.shape[-1]))
