"""ResMLP, gMLP and gMixer: what follows from their configs. See convert/test_siblings.py, too."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mixer_mlx import MixerConfig, MlpMixer
from mixer_mlx.resolution import resize

FAMILIES = {
    "resmlp": {"channels_mlp_dim": 64},
    "gmlp": {"channels_mlp_dim": 96},
    "gmixer": {"tokens_mlp_dim": 20, "channels_mlp_dim": 64, "hidden_act": "silu"},
}


def small(family: str, **changes: object) -> MixerConfig:
    sizes = {
        "image_size": (24, 32),
        "patch_size": 8,
        "num_blocks": 2,
        "hidden_dim": 32,
        "num_classes": 7,
    }
    return MixerConfig(**{"model_type": family, **sizes, **FAMILIES[family], **changes})  # type: ignore[arg-type]


def shaken(family: str) -> MlpMixer:
    """A model whose parameters are far from those that make a block do nothing."""
    model = MlpMixer(small(family))
    parameters = tree_flatten(model.parameters())
    moved = [(name, value + 0.2 * mx.random.normal(value.shape)) for name, value in parameters]
    model.load_weights(moved)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_initialised_as_timm_does(family: str) -> None:
    """Norms, gates, scales and the head; kernels as the Mixer's."""
    mx.random.seed(0)
    parameters = dict(tree_flatten(MlpMixer(small(family)).parameters()))
    for name, value in parameters.items():
        values = np.array(value)
        last = name.rsplit(".", 1)[-1]
        if name.endswith("gate.proj.weight"):
            assert 0 < abs(values).max() < 1e-5
        elif "gate.proj" in name or ("norm" in name and last == "weight"):
            assert (values == 1).all(), name
        elif last.startswith("scale"):
            assert np.allclose(values, 1e-4), name
        elif last == "bias" or name == "head.weight":
            assert not values.any(), name
        else:
            assert values.std() == pytest.approx(values[0].size ** -0.5, rel=0.1), name


@pytest.mark.parametrize(
    ("variant", "scale"),
    [("S12", 1e-4), ("S24", 1e-5), ("S36", 1e-6), ("B24/8", 1e-6)],
)
def test_layer_scale_starts_at_timms_value(variant: str, scale: float) -> None:
    model = MlpMixer(MixerConfig.variant(f"ResMLP-{variant}"))
    assert model.blocks[-1].scale1[0].item() == pytest.approx(scale)
    assert model.blocks[0].scale2[-1].item() == pytest.approx(scale)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_stays_half_throughout(family: str, dtype: mx.Dtype) -> None:
    model = MlpMixer(small(family))
    model.set_dtype(dtype)
    seen = model.intermediates(mx.random.normal((1, 24, 32, 3)))
    assert {seen.stem.dtype, seen.pre_logits.dtype, seen.logits.dtype} == {dtype}
    assert {block.dtype for block in seen.blocks} == {dtype}


@pytest.mark.parametrize("family", FAMILIES)
def test_dropped_branches_do_nothing(family: str) -> None:
    block = shaken(family).blocks[0]
    x = mx.random.normal((3, 12, 32))
    keep = mx.array([1.0, 0.0, 1.0]).reshape(1, 3, 1, 1) * mx.ones((2, 1, 1, 1))
    y = block(x, keep)
    assert mx.array_equal(y[1], x[1])
    assert mx.allclose(y[::2], block(x)[::2], atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ratio", [(2, 2), (1, 3)])
def test_a_tiled_image_keeps_every_parts_tokens_and_the_logits(
    family: str, ratio: tuple[int, int]
) -> None:
    model = shaken(family)
    kh, kw = ratio
    x = mx.random.normal((2, 24, 32, 3))
    large = resize(model, (24 * kh, 32 * kw))
    seen, expected = large.intermediates(mx.tile(x, (1, kh, kw, 1))), model.intermediates(x)
    assert large.config.num_parameters == sum(
        value.size for _, value in tree_flatten(large.parameters())
    )
    for found, block in zip(seen.blocks, expected.blocks, strict=True):
        rows = np.array(found).reshape(2, kh, 3, kw, 4, 32)
        for y in range(kh):
            for z in range(kw):
                part = rows[:, y, :, z].reshape(2, 12, 32)
                assert abs(part - np.array(block)).max() < 1e-4
    assert abs(np.array(seen.logits - expected.logits)).max() < 1e-4
