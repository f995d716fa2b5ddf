"""Linear maps over channels and over tokens, and of each channel, with custom derivatives.

MLX's own gradient of a weight is a transposed view, which later operations access column by
column, and it sums a bias's gradient in the activations' dtype: in half precision that loses most
digits. Here gradients have the memory layout of the weights, and are summed in float32.
"""

from collections.abc import Callable
from typing import cast

import mlx.core as mx

from .plain import plain

Linear = Callable[[mx.array, mx.array, mx.array], mx.array]


@mx.custom_function
def _over_channels(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    return mx.addmm(bias, x, weight.T)


@_over_channels.vjp
def _(
    primals: tuple[mx.array, mx.array, mx.array], ct: mx.array, _: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    x, weight, _bias = primals
    rows = ct.reshape(-1, ct.shape[-1])  # (N S, out)
    return ct @ weight, _sum_of_outer(rows, x), sum_of_rows(rows)


@mx.custom_function
def _over_tokens(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    return mx.addmm(bias[:, None], weight, x)


@_over_tokens.vjp
def _(
    primals: tuple[mx.array, mx.array, mx.array], ct: mx.array, _: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    x, weight, _bias = primals
    return weight.T @ ct, _sum_of_products(ct, x), _sum_of_tokens(ct)


@mx.custom_function
def _plus_channels(y: mx.array, x: mx.array, weight: mx.array) -> mx.array:
    return mx.addmm(y, x, weight.T)


@_plus_channels.vjp
def _(
    primals: tuple[mx.array, mx.array, mx.array], ct: mx.array, _: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    _y, x, weight = primals
    return ct, ct @ weight, _sum_of_outer(ct, x)


@mx.custom_function
def _plus_tokens(y: mx.array, x: mx.array, weight: mx.array) -> mx.array:
    return mx.addmm(y, weight, x)


@_plus_tokens.vjp
def _(
    primals: tuple[mx.array, mx.array, mx.array], ct: mx.array, _: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    _y, x, weight = primals
    return ct, weight.T @ ct, _sum_of_products(ct, x)


def _sum_of_outer(ct: mx.array, x: mx.array) -> mx.array:
    """ct (..., out), x (..., in) -> (out, in), summed over all axes but the last."""
    return ct.reshape(-1, ct.shape[-1]).T @ x.reshape(-1, x.shape[-1])


def _sum_of_products(ct: mx.array, x: mx.array) -> mx.array:
    """ct (N, out, C), x (N, in, C) -> (out, in), summed over N and C."""
    products = ct @ x.swapaxes(-1, -2)  # (N, out, in)
    return sum_of_rows(products.reshape(len(x), -1)).reshape(products.shape[1:])


def sum_of_rows(rows: mx.array) -> mx.array:
    """(R, K) -> (K,), as a matrix product: those add up in float32, without a float32 copy."""
    total = rows if len(rows) == 1 else mx.ones((1, len(rows)), rows.dtype) @ rows
    return total.squeeze(0)  # not [0], which is a kernel


def _sum_of_tokens(ct: mx.array) -> mx.array:
    """(N, out, C) -> (out,)."""
    N, out, C = ct.shape
    if ct.dtype == mx.float32:
        return ct.sum(axis=(0, 2))
    return (sum_of_rows(ct.reshape(N, -1)).reshape(out, C) @ mx.ones((C, 1), ct.dtype)).squeeze(1)


@mx.custom_function
def _affine(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    return x * weight + bias


@_affine.vjp
def _(
    primals: tuple[mx.array, mx.array, mx.array], ct: mx.array, _: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    x, weight, bias = primals
    wide = ct.astype(mx.float32)
    of_bias = _per_channel(wide, bias) if bias.ndim == 1 else ct
    return ct * weight, _per_channel(wide * x, weight), of_bias


def _per_channel(gradient: mx.array, parameter: mx.array) -> mx.array:
    """Float32 (..., C) summed over all axes but the last, in the parameter's dtype."""
    return gradient.reshape(-1, gradient.shape[-1]).sum(axis=0).astype(parameter.dtype)


_FUNCTIONS = (_over_channels, _over_tokens, _affine, _plus_channels, _plus_tokens)
_channels, _tokens, _affine_map, plus_channels, plus_tokens = (cast(Linear, f) for f in _FUNCTIONS)


def over_channels(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """x (..., in), weight (out, in), bias (out,) -> x weight^T + bias, (..., out)."""
    return x @ weight.T + bias if plain() else _channels(x, weight, bias)


def over_tokens(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """x (N, in, C), weight (out, in), bias (out,) -> weight x + bias, (N, out, C)."""
    # Not addmm, whose shapes MLX can't infer for any N.
    return weight @ x + bias[:, None] if plain() else _tokens(x, weight, bias)


def affine(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """x (..., C), weight (C,), bias (C,) or (..., C) -> x * weight + bias."""
    return x * weight + bias if plain() else _affine_map(x, weight, bias)
