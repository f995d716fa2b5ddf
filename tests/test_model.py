import re
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from reference import numpy_mixer

from mixer_mlx import VARIANTS, ConfigError, MixerConfig, MlpMixer
from mixer_mlx.convert import Settings, import_model


def small(**changes: object) -> MixerConfig:
    sizes = {
        "image_size": (24, 32),
        "patch_size": 8,
        "num_blocks": 2,
        "hidden_dim": 32,
        "tokens_mlp_dim": 24,
        "channels_mlp_dim": 64,
        "num_classes": 7,
    }
    return MixerConfig(**{**sizes, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_built_are_the_parameters_counted(name: str) -> None:
    config = MixerConfig.variant(name)  # the arrays are lazy, so H/14 takes no memory
    built = sum(value.size for _, value in tree_flatten(MlpMixer(config).parameters()))
    assert built == config.num_parameters


def test_initialised_as_flax_does() -> None:
    mx.random.seed(0)
    model = MlpMixer(MixerConfig.variant("S/32"))
    checked = 0
    for name, value in tree_flatten(model.parameters()):
        values = np.array(value)
        if name.startswith("head.") or name.endswith("bias"):
            assert not values.any(), name
        elif "norm" in name:
            assert (values == 1).all(), name
        else:
            unit = values[0].size ** -0.5
            assert values.std() == pytest.approx(unit, rel=0.02), name
            assert abs(values).max() <= 2.28 * unit, name
            assert abs(values.mean()) < 0.02 * unit, name
            checked += 1
    assert checked == 1 + 4 * 8


@pytest.mark.parametrize(
    ("height", "width", "patch", "channels", "classes"),
    [(24, 32, 8, 3, 7), (32, 24, 8, 1, 5), (10, 30, 5, 6, 3), (8, 8, 8, 3, 2), (12, 12, 4, 3, 0)],
)
def test_any_sizes_against_a_numpy_mixer(
    tmp_path: Path, height: int, width: int, patch: int, channels: int, classes: int
) -> None:
    rng = np.random.default_rng(height * width + channels)
    weights = numpy_mixer.random_weights(
        rng,
        num_tokens=height * width // patch**2,
        patch=patch,
        channels=channels,
        dim=20,
        tokens_mlp=9,
        channels_mlp=31,
        blocks=2,
        classes=classes,
    )
    np.savez(tmp_path / "weights.npz", **weights)
    model = import_model(
        tmp_path / "weights.npz", settings=Settings(image_size=(height, width))
    ).model
    images = rng.uniform(-1, 1, (3, height, width, channels)).astype(np.float32)
    expected = numpy_mixer.forward(weights, images)
    assert abs(np.array(model(mx.array(images))) - expected).max() < 1e-5


def test_intermediates_are_those_of_the_forward_pass() -> None:
    model = MlpMixer(small())
    x = mx.random.normal((2, 24, 32, 3))
    seen = model.intermediates(x)
    assert seen.stem.shape == (2, 12, 32)
    assert [block.shape for block in seen.blocks] == [(2, 12, 32)] * 2
    assert mx.array_equal(seen.pre_logits, model.pre_logits(x))
    assert mx.array_equal(seen.logits, model(x))


def test_no_classes_gives_pre_logits() -> None:
    model = MlpMixer(small(num_classes=0))
    x = mx.random.normal((2, 24, 32, 3))
    assert model(x).shape == (2, 32)
    assert mx.array_equal(model(x), model.pre_logits(x))


@pytest.mark.parametrize("shape", [(2, 32, 24, 3), (2, 24, 32, 1), (24, 32, 3)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"\(N, 24, 32, 3\)"):
        MlpMixer(small())(mx.zeros(shape))


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_stays_half_throughout(dtype: mx.Dtype) -> None:
    model = MlpMixer(small())
    model.set_dtype(dtype)
    seen = model.intermediates(mx.random.normal((1, 24, 32, 3)))
    assert {seen.stem.dtype, seen.pre_logits.dtype, seen.logits.dtype} == {dtype}
    assert {block.dtype for block in seen.blocks} == {dtype}


def test_pooling_does_not_lose_digits_in_bfloat16() -> None:
    model = MlpMixer(small(image_size=(256, 256), patch_size=8))
    tokens = mx.random.normal((1, 1024, 32)).astype(mx.bfloat16)
    exact = np.array(model.norm(tokens).astype(mx.float32)).astype(np.float64).mean(axis=1)
    model.set_dtype(mx.bfloat16)
    pooled = np.array(model.pool(tokens).astype(mx.float32))
    assert abs(pooled - exact).max() < 4e-4  # a sum in bfloat16 would be ten times further off


def graph(output: mx.array, path: Path) -> dict[str, tuple[str, list[str]]]:
    """The operations behind a lazy result: number -> (name, numbers of those it reads from).

    An input that was evaluated before has no number, and stands as "".
    """
    mx.export_to_dot(str(path), output)
    text = path.read_text()
    operations = dict(re.findall(r'(\d+) \[label ="(\w+)"', text))
    makers = {array: number for number, array in re.findall(r'^(\d+) -> "(\w+)"', text, re.M)}
    reads = re.findall(r'^"(\w+)" -> (\d+)', text, re.M)
    return {
        number: (name, [makers.get(array, "") for array, reader in reads if reader == number])
        for number, name in operations.items()
    }


def test_a_block_is_the_fewest_operations_and_copies_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = MlpMixer(small()).blocks[0]
    # One operation that nothing else uses stands for a GELU, and one for a layer norm, which is a
    # kernel on a GPU and many operations on the CPU.
    for mlp in (block.token_mixing, block.channel_mixing):
        mlp._act = mx.sin
    monkeypatch.setattr(mx.fast, "layer_norm", lambda x, *_: mx.cos(x))
    x = mx.random.normal((2, 12, 32))
    mx.eval(block.parameters(), x)
    found = graph(block(x), tmp_path / "block.dot")
    names = [name for name, _ in found.values()]
    # The last two stand where a map has a derivative of its own, and hand arrays on.
    free = {"Broadcast", "ExpandDims", "StopGradient", "CustomTransforms"}
    work = sorted(name for name in names if name not in free)
    views = ["Reshape"] * 4 + ["Transpose"] * 2
    assert work == sorted(["Cos"] * 2 + ["AddMM"] * 4 + ["Sin"] * 2 + ["Add"] * 2 + views)
    # What is called a view costs nothing where it is one: a transposed weight is read in place, and
    # a reshape is free of what lies in order, which a transposed or broadcast array does not.
    for name, readers in found.values():
        sources = {found[number][0] if number else "evaluated" for number in readers}
        if name == "Transpose":
            assert sources <= {"evaluated", "StopGradient"}
        if name == "Reshape":
            assert sources <= {"Cos", "Sin", "AddMM", "StopGradient"}


def test_the_stem_copies_the_image_once(tmp_path: Path) -> None:
    model = MlpMixer(small())
    x = mx.random.normal((2, 24, 32, 3))
    mx.eval(model.parameters(), x)
    found = graph(model.embed(x), tmp_path / "stem.dot")
    names = [name for name, _ in found.values()]
    assert names.count("AddMM") == 1
    assert names.count("Transpose") == 2  # the image's patches, and the weight
    assert "Convolution" not in names


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("jax_tiny", (24, 32)),
        ("jax_square", None),
        ("jax_from_timm", (24, 32)),
        ("timm_tiny", (24, 32)),
    ],
)
def test_every_intermediate_is_that_of_the_reference_code(
    golden: Path, name: str, size: tuple[int, int] | None
) -> None:
    suffix = ".safetensors" if name.startswith("timm") else ".npz"
    model = import_model(golden / f"{name}{suffix}", settings=Settings(image_size=size)).model
    expected = np.load(golden / f"{name}_expected.npz")
    seen = model.intermediates(mx.array(expected["images"]))
    pairs = {"stem": seen.stem, "pre_logits": seen.pre_logits, "logits": seen.logits}
    pairs |= {f"block_{i}": block for i, block in enumerate(seen.blocks)}
    checked = 0
    for key, value in pairs.items():
        if key in expected:
            theirs = expected[key].reshape(value.shape)  # Flax keeps the rows of the stem apart
            assert abs(np.array(value) - theirs).max() < 1e-5, key
            checked += 1
    assert checked == len(expected.files) - 1
