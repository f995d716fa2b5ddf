import mlx.core as mx
import numpy as np
import pytest

from mixer_mlx.ops.linear import Linear, affine, over_channels, over_tokens

N, S, C, OUT = 3, 5, 7, 4


def arrays(linear: Linear) -> tuple[np.ndarray, ...]:
    """x, weight, bias and a cotangent, float64."""
    rng = np.random.default_rng(0)
    inner = C if linear is over_channels else S
    shape = (N, S, OUT) if linear is over_channels else (N, OUT, C)
    shapes = [(N, S, C), (OUT, inner), (OUT,), shape]
    return tuple(rng.standard_normal(shape) for shape in shapes)


@pytest.mark.parametrize("linear", [over_channels, over_tokens])
def test_value_and_derivatives(linear: Linear) -> None:
    x, weight, bias, ct = arrays(linear)
    inputs = [mx.array(a.astype(np.float32)) for a in (x, weight, bias)]
    (value,), gradients = mx.vjp(linear, inputs, [mx.array(ct.astype(np.float32))])
    if linear is over_channels:
        expected = np.einsum("nsc,oc->nso", x, weight) + bias
        derivatives = (
            np.einsum("nso,oc->nsc", ct, weight),
            np.einsum("nso,nsc->oc", ct, x),
            np.einsum("nso->o", ct),
        )
    else:
        expected = np.einsum("nsc,os->noc", x, weight) + bias[:, None]
        derivatives = (
            np.einsum("noc,os->nsc", ct, weight),
            np.einsum("noc,nsc->os", ct, x),
            np.einsum("noc->o", ct),
        )
    assert np.array(value) == pytest.approx(expected, abs=1e-5)
    for gradient, derivative in zip(gradients, derivatives, strict=True):
        assert np.array(gradient) == pytest.approx(derivative, abs=1e-5)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("linear", [over_channels, over_tokens])
def test_bias_gradient_in_half_precision_is_summed_in_float32(
    linear: Linear, dtype: mx.Dtype
) -> None:
    # 4096 ones and 4096 halves: in either dtype a sum of ones ends at 256 or 2048.
    shape = (2, 4096, 1) if linear is over_channels else (2, 1, 4096)
    ct = mx.concatenate([mx.ones((1, *shape[1:])), mx.full((1, *shape[1:]), 0.5)]).astype(dtype)
    x = mx.zeros((2, 4096, 1) if linear is over_channels else (2, 1, 4096), dtype)
    inputs = [x, mx.zeros((1, 1), dtype), mx.zeros(1, dtype)]
    gradient = mx.vjp(linear, inputs, [ct])[1][2]
    assert gradient.dtype == dtype
    assert gradient.item() == 6144


@pytest.mark.parametrize("linear", [over_channels, over_tokens])
def test_weight_gradient_lies_as_the_weight_does(linear: Linear) -> None:
    x, weight, bias, ct = (mx.array(a.astype(np.float32)) for a in arrays(linear))
    gradient = mx.vjp(linear, [x, weight, bias], [ct])[1][1]
    mx.eval(gradient)
    assert memoryview(gradient).c_contiguous


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_gradients_in_half_precision_are_as_good_as_their_inputs(dtype: mx.Dtype) -> None:
    """All sums, over images, tokens and channels, against float64: an error of one rounding."""
    rng = np.random.default_rng(0)
    x, ct = (mx.array(rng.uniform(0.5, 1.5, (64, 8, 24))).astype(dtype) for _ in range(2))
    wide_x, wide_ct = (np.array(a.astype(mx.float32), np.float64) for a in (x, ct))
    inputs = [x, mx.zeros((8, 8), dtype), mx.zeros(8, dtype)]
    _, weight, bias = mx.vjp(over_tokens, inputs, [ct])[1]
    expected = [np.einsum("noc,nsc->os", wide_ct, wide_x), wide_ct.sum((0, 2))]
    spacing = 2.0 ** (-10 if dtype == mx.float16 else -7)
    for found, value in zip((weight, bias), expected, strict=True):
        assert (abs(np.array(found.astype(mx.float32)) - value) <= 1.1 * spacing * value).all()


def test_affine() -> None:
    rng = np.random.default_rng(0)
    x, ct, skip = rng.standard_normal((3, N, S, C)).astype(np.float32)
    weight, bias = rng.standard_normal((2, C)).astype(np.float32)
    for added, its_gradient in ((bias, ct.sum((0, 1))), (skip, ct)):
        found = mx.vjp(affine, [mx.array(x), mx.array(weight), mx.array(added)], [mx.array(ct)])
        expected = [x * weight + added, ct * weight, (ct * x).sum((0, 1)), its_gradient]
        for value, array in zip([*found[0], *found[1]], expected, strict=True):
            assert np.array(value) == pytest.approx(array, abs=1e-5)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_gradients_per_channel_are_summed_in_float32(dtype: mx.Dtype) -> None:
    x, ct = mx.ones((2, 4096, 1), dtype), mx.full((2, 4096, 1), 0.5, dtype)
    one = mx.ones(1, dtype)
    gradients = mx.vjp(affine, [x, one, one], [ct])[1][1:]
    assert [(g.dtype, g.item()) for g in gradients] == [(dtype, 4096)] * 2
