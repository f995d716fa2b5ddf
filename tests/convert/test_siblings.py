"""ResMLP, gMLP and gMixer against timm, see tests/reference/make_siblings.py."""

import json
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors.numpy import load_file, save_file

from mixer_mlx import (
    VARIANTS,
    ConfigError,
    ConversionError,
    MixerConfig,
    MlpMixer,
    ModelInfo,
    Preprocess,
    Recipe,
    checkpoint,
)
from mixer_mlx.catalog import CATALOG
from mixer_mlx.convert import Settings, convert, export, import_model
from mixer_mlx.convert.export import timm
from mixer_mlx.convert.export.tensors import foreign_tensors
from mixer_mlx.convert.names import TIMM_LAYOUTS
from mixer_mlx.training.step import first_arrays, make_step

FAMILIES = ("resmlp", "gmlp", "gmixer")
SIZE = Settings(image_size=(24, 32))
families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def siblings(golden: Path) -> Path:
    return golden / "siblings"


def ours(tensors: dict[str, np.ndarray], family: str) -> dict[str, np.ndarray]:
    """Their arrays under our names."""
    names = TIMM_LAYOUTS[family].names(2, head=True)  # type: ignore[index]
    return {
        name: value.transpose(axes)
        if axes and len(axes) == 4
        else value.reshape(-1)
        if value.shape[:2] == (1, 1)
        else value
        for name, (foreign, axes) in names.items()
        for value in [tensors[foreign]]
    }


@families
def test_every_intermediate_is_timms(siblings: Path, family: str) -> None:
    imported = import_model(siblings / f"{family}.safetensors", settings=SIZE)
    config = imported.info.config
    assert (config.model_type, config.image_size) == (family, (24, 32))
    assert config.hidden_act == ("silu" if family == "gmixer" else "gelu")
    assert any("activation" in sentence for sentence in imported.assumed)
    with np.load(siblings / f"{family}.npz") as file:
        expected = dict(file)
    seen = imported.model.intermediates(mx.array(expected.pop("images")))
    found = {"stem": seen.stem, "pre_logits": seen.pre_logits, "logits": seen.logits}
    found |= {f"block_{i}": block for i, block in enumerate(seen.blocks)}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(np.array(found[name]) - value).max() < 1e-5, name


@families
def test_the_preprocessing_that_is_assumed_is_the_published_models(
    siblings: Path, family: str
) -> None:
    imported = import_model(siblings / f"{family}.safetensors", settings=SIZE)
    published = next(e for e in CATALOG.values() if e.config.model_type == family).preprocess
    assert imported.info.preprocess == replace(published, image_size=(24, 32))
    assert any("preprocessing" in sentence for sentence in imported.assumed)


def is_noise(name: str, family: str) -> bool:
    """A bias that every layer norm takes out again, see tests/training/test_golden.py."""
    return family == "gmixer" and name.endswith("token_mixing.fc2.bias")


@families
def test_ten_training_steps_are_pytorchs(siblings: Path, family: str) -> None:
    recipe = Recipe(
        steps=10,
        batch_size=6,
        warmup=0,
        schedule="constant",
        lr=0.01,
        weight_decay=0.1,
        clip_norm=None,
    )
    imported = import_model(siblings / f"{family}.safetensors", settings=SIZE)
    with np.load(siblings / f"{family}_training.npz") as file:
        theirs = dict(file)
    with np.load(siblings / "batches.npz") as file:
        pixels, labels = file["pixels"], file["labels"]
    preprocess = Preprocess((24, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    step = make_step(imported.info.config, recipe, preprocess)
    before = ours(load_file(siblings / f"{family}.safetensors"), family)
    arrays = first_arrays({name: mx.array(value) for name, value in before.items()}, recipe)
    for number in range(10):
        arrays, report = step(arrays, {}, pixels[number], labels[number], number, 0.01)
        assert report[0].item() == pytest.approx(theirs["loss"][number], rel=1e-4)
    prefix = "after/"
    after = ours({k.removeprefix(prefix): v for k, v in theirs.items() if prefix in k}, family)
    assert set(after) == set(arrays["weights"])
    for name, value in after.items():
        off = abs(np.array(arrays["weights"][name]) - value).max() / abs(value).max()
        assert off < 1e-3 or is_noise(name, family), (name, off)


@families
def test_back_to_timm_bit_for_bit(siblings: Path, tmp_path: Path, family: str) -> None:
    source = siblings / f"{family}.safetensors"
    convert(source, tmp_path / "model", settings=SIZE)
    assert checkpoint.read_info(tmp_path / "model").config.model_type == family
    export(tmp_path / "model", tmp_path / "out", format="timm")
    theirs, back = load_file(source), load_file(tmp_path / "out" / "model.safetensors")
    assert theirs.keys() == back.keys()
    for name, value in theirs.items():
        assert back[name].shape == value.shape, name
        assert back[name].tobytes() == value.tobytes(), name
    again = convert(tmp_path / "out", tmp_path / "again")
    assert again.info.config == checkpoint.read_info(tmp_path / "model").config
    assert again.assumed == ()


def deits(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """timm's ResMLP under the names and shapes of facebookresearch/deit, `resmlp_models.py`."""
    renamed = {}
    for name, value in tensors.items():
        for new, old in (
            ("patch_embed.", "stem."),
            ("attn.", "linear_tokens."),
            ("mlp.", "mlp_channels."),
            ("gamma_", "ls"),
        ):
            name = name.replace(old, new)
        renamed[name] = value.reshape(-1) if "alpha" in name or "beta" in name else value
    return renamed


def test_facebooks_own_resmlp_files(siblings: Path, tmp_path: Path) -> None:
    theirs = deits(load_file(siblings / "resmlp.safetensors"))
    save_file(theirs, tmp_path / "w.safetensors")
    imported = import_model(tmp_path / "w.safetensors", settings=SIZE)
    assert imported.info.source["layout"] == "deit"
    with np.load(siblings / "resmlp.npz") as expected:
        logits = np.array(imported.model(mx.array(expected["images"])))
        assert abs(logits - expected["logits"]).max() < 1e-5
    for name in theirs:
        rest = {key: value for key, value in theirs.items() if key != name}
        save_file(rest, tmp_path / "less.safetensors")
        if name.startswith("head."):
            continue
        with pytest.raises(ConversionError, match=f"{name} is missing|known"):
            import_model(tmp_path / "less.safetensors", settings=SIZE)


def test_a_vision_transformer_is_no_resmlp(tmp_path: Path) -> None:
    block = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    names = ["patch_embed.proj", *(f"blocks.0.{name}" for name in block), "norm", "head"]
    tensors = {f"{n}.{kind}": np.zeros((2, 2)) for n in names for kind in ("weight", "bias")}
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ConversionError, match="don't have the names of a known"):
        import_model(tmp_path / "w.safetensors")


@families
def test_each_tensor_is_used_exactly_once(siblings: Path, tmp_path: Path, family: str) -> None:
    """Whatever is missing, left over or of another shape is named."""
    tensors = load_file(siblings / f"{family}.safetensors")
    path = tmp_path / "w.safetensors"
    for name, value in tensors.items():
        others = {key: other for key, other in tensors.items() if key != name}
        longer = np.concatenate([value, value], axis=-1)
        changed = [
            (others, f"{name} is missing"),
            ({**others, name: longer}, f"{name}|made for 24|stem.weight would"),
        ]
        if name == "head.weight":
            changed[0] = (others, "head.bias is left over")
        if name == "stem.proj.weight":
            changed[0] = (others, "don't have the names of a known")
        for weights, says in changed:
            save_file(weights, path)
            with pytest.raises((ConversionError, ConfigError), match=says.replace(".", r"\.")):
                import_model(path, settings=SIZE)
    save_file({**tensors, "blocks.0.extra": tensors["head.bias"]}, path)
    with pytest.raises(ConversionError, match=r"blocks\.0\.extra is left over"):
        import_model(path, settings=SIZE)


def test_a_config_of_another_family_is_refused(siblings: Path, tmp_path: Path) -> None:
    weights = load_file(siblings / "gmixer.safetensors")
    save_file(weights, tmp_path / "model.safetensors")
    config = {"architecture": "mixer_b16_224", "pretrained_cfg": {"input_size": [3, 24, 32]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConversionError, match=r"a gMixer.*MLP-Mixer"):
        import_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "gmixer_tiny"}))
    assert import_model(tmp_path).info.config.hidden_act == "silu"


def test_timms_names_and_its_numbers_of_parameters_and_operations(siblings: Path) -> None:
    counts = json.loads((siblings / "parameters.json").read_text())
    found = {}
    for variant, sizes in VARIANTS.items():
        if sizes["model_type"] != "mlp_mixer":
            config = MixerConfig.variant(variant)
            headless = config.replace(num_classes=0)
            name = timm.architecture(config)
            assert timm.architecture(config.replace(image_size=(448, 224), in_channels=1)) == name
            assert timm.architecture(config.replace(channels_mlp_dim=128)) is None
            found[name] = [config.num_parameters, headless.num_parameters, config.num_macs]
    assert found == counts


@families
def test_what_timm_can_not_name_is_said(family: str) -> None:
    variant = next(name for name in VARIANTS if VARIANTS[name]["model_type"] == family)
    config = MixerConfig.variant(variant, num_blocks=2, hidden_act="gelu_tanh")
    first, second = timm.notes(ModelInfo(config, Preprocess((224, 224))))
    layers = {"resmlp": "ResBlock", "gmlp": "SpatialGatingBlock", "gmixer": "GluMlp"}
    assert layers[family] in first
    assert "gelu_tanh" in second


@families
def test_the_official_jax_code_has_no_sibling(tmp_path: Path, siblings: Path, family: str) -> None:
    convert(siblings / f"{family}.safetensors", tmp_path / "model", settings=SIZE)
    with pytest.raises(ConfigError, match="only MLP-Mixer"):
        export(tmp_path / "model", tmp_path / "out.npz", format="jax")
    assert not (tmp_path / "out.npz").exists()


@families
def test_a_native_folder_round_trips(tmp_path: Path, siblings: Path, family: str) -> None:
    """The weights are MLX's names of modules, whatever their source calls them."""
    imported = convert(siblings / f"{family}.safetensors", tmp_path / "model", settings=SIZE)
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert stored.keys() == checkpoint.parameter_shapes(MlpMixer(imported.info.config)).keys()
    expected = ours(load_file(siblings / f"{family}.safetensors"), family)
    for name, value in expected.items():
        assert np.array_equal(stored[name], value), name


@pytest.mark.slow
@pytest.mark.parametrize("variant", [v for v, s in VARIANTS.items() if s["model_type"] in FAMILIES])
def test_full_size_round_trips(tmp_path: Path, variant: str) -> None:
    """timm -> native -> timm, bit for bit; tests/reference/check_siblings.py has timm in it."""
    model = MlpMixer(MixerConfig.variant(variant))
    model.load_weights(
        [(name, mx.random.normal(p.shape)) for name, p in tree_flatten(model.parameters())]
    )
    source = foreign_tensors(model, TIMM_LAYOUTS[model.config.model_type])
    save_file(source, tmp_path / "source.safetensors")
    assert convert(tmp_path / "source.safetensors", tmp_path / "a").info.config == model.config
    export(tmp_path / "a", tmp_path / "timm", format="timm")
    assert convert(tmp_path / "timm", tmp_path / "b").info.config == model.config
    stored = load_file(tmp_path / "b" / "model.safetensors")
    back = load_file(tmp_path / "timm" / "model.safetensors")
    assert back.keys() == source.keys()
    assert all(np.array_equal(back[name], value) for name, value in source.items())
    for name, value in tree_flatten(model.parameters()):
        assert np.array_equal(stored[name], np.array(value)), name
