"""Quantised matrices back into floats in NumPy, from the definitions of the formats.

affine: MLX's documentation of `mx.quantize`; numbers are packed into 32-bit words from the lowest
bits upwards. mxfp4 and mxfp8: OCP Microscaling Formats (MX) Specification 1.0, sections 5.3 and 6:
elements E2M1 or E4M3, a shared scale E8M0.
"""

import numpy as np


def dequantize(
    words: np.ndarray,
    scales: np.ndarray,
    biases: np.ndarray | None,
    *,
    bits: int,
    group_size: int,
    mode: str,
) -> np.ndarray:
    """(rows, words) uint32 -> (rows, columns) float64."""
    codes = _unpacked(words, bits)
    if mode == "affine":
        assert biases is not None
        scale, shift = _spread(scales, group_size), _spread(biases, group_size)
        return codes * scale + shift
    assert biases is None
    values = np.array([_minifloat(code, *FORMS[mode]) for code in range(2**bits)])
    return values[codes] * _spread(2.0 ** (scales.astype(np.float64) - 127), group_size)


FORMS = {"mxfp4": (2, 1), "mxfp8": (4, 3)}
"""Bits of exponent and mantissa."""


def _unpacked(words: np.ndarray, bits: int) -> np.ndarray:
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    codes = (words[..., None] >> shifts) & np.uint32(2**bits - 1)
    return codes.reshape(len(words), -1).astype(np.int64)


def _spread(values: np.ndarray, group_size: int) -> np.ndarray:
    return np.repeat(values.astype(np.float64), group_size, axis=1)


def _minifloat(code: int, exponent_bits: int, mantissa_bits: int) -> float:
    """Sign, exponent, mantissa; no infinities, and exponent 0 is subnormal."""
    sign = -1 if code >> (exponent_bits + mantissa_bits) else 1
    exponent = (code >> mantissa_bits) & (2**exponent_bits - 1)
    fraction = (code & (2**mantissa_bits - 1)) / 2**mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    if exponent == 0:
        return sign * fraction * 2.0 ** (1 - bias)
    return sign * (1 + fraction) * 2.0 ** (exponent - bias)
