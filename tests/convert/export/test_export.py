"""Exported files against files that other people's code wrote."""

import dataclasses
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from reference import numpy_mixer
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from mixer_mlx import (
    VARIANTS,
    CheckpointError,
    ConfigError,
    MixerConfig,
    MlpMixer,
    ModelInfo,
    Preprocess,
    checkpoint,
)
from mixer_mlx.catalog import CATALOG
from mixer_mlx.convert import Settings, convert, export
from mixer_mlx.convert.export import timm
from mixer_mlx.convert.export.tensors import foreign_tensors
from mixer_mlx.convert.names import JAX, TIMM, TIMM_LAYOUTS

SIZE = Settings(image_size=(24, 32))


def equal(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        assert ours[name].shape == value.shape, name
        assert ours[name].tobytes() == np.ascontiguousarray(value).tobytes(), name


@pytest.mark.parametrize("format", ["timm", "jax"])
def test_missing_folders_are_made(tmp_path: Path, format: str) -> None:
    out = tmp_path / "a" / "b" / ("out.npz" if format == "jax" else "out")
    export("cifar10", out, format=format)
    assert out.exists()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(timm, "save_file", full)
    with pytest.raises(CheckpointError, match=r"out can.t be written: .* No space left on device"):
        export("cifar10", tmp_path / "out", format="timm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["jax_tiny", "jax_from_timm"])
def test_back_to_jax_bit_for_bit(golden: Path, tmp_path: Path, name: str) -> None:
    convert(golden / f"{name}.npz", tmp_path / "model", settings=SIZE)
    export(tmp_path / "model", tmp_path / "out.npz", format="jax")
    equal(dict(np.load(tmp_path / "out.npz")), dict(np.load(golden / f"{name}.npz")))


def test_back_to_timm_bit_for_bit(golden: Path, tmp_path: Path) -> None:
    convert(golden / "timm_cifar10", tmp_path / "model")
    export(tmp_path / "model", tmp_path / "out", format="timm")
    equal(
        load_file(tmp_path / "out" / "model.safetensors"),
        load_file(golden / "timm_cifar10" / "model.safetensors"),
    )
    with safe_open(tmp_path / "out" / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
    ours = json.loads((tmp_path / "out" / "config.json").read_text())
    theirs = json.loads((golden / "timm_cifar10" / "config.json").read_text())
    assert ours["label_names"] == theirs["label_names"]
    assert ours["model_args"].pop("img_size") == [theirs["model_args"].pop("img_size")] * 2
    assert ours["model_args"].pop("in_chans") == 3
    assert ours["model_args"] == theirs["model_args"]
    for key in ("tag", "custom_load", "license"):
        del theirs["pretrained_cfg"][key]
    assert ours["pretrained_cfg"] == theirs["pretrained_cfg"]


def test_across_from_timm_to_jax_and_back(golden: Path, tmp_path: Path) -> None:
    """The same weights, written under the official names by other people's code."""
    convert(golden / "timm_tiny.safetensors", tmp_path / "model", settings=SIZE)
    export(tmp_path / "model", tmp_path / "out.npz", format="jax")
    equal(dict(np.load(tmp_path / "out.npz")), dict(np.load(golden / "jax_from_timm.npz")))
    convert(golden / "jax_from_timm.npz", tmp_path / "other", settings=SIZE)
    export(tmp_path / "other", tmp_path / "out", format="timm")
    equal(
        load_file(tmp_path / "out" / "model.safetensors"),
        load_file(golden / "timm_tiny.safetensors"),
    )


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("layout", [JAX, TIMM], ids=lambda layout: layout.name)
def test_names_of_every_published_model_are_used_once(name: str, layout) -> None:  # type: ignore[no-untyped-def]
    """As many foreign names as there are tensors, none twice."""
    config = CATALOG[name].config
    if config.model_type != "mlp_mixer":
        layout = TIMM_LAYOUTS[config.model_type]
    names = layout.names(config.num_blocks, head=True)
    foreign = [theirs for theirs, _ in names.values()]
    per_block = {"mlp_mixer": 12, "resmlp": 12, "gmlp": 10, "gmixer": 12}[config.model_type]
    assert len(set(foreign)) == len(foreign) == per_block * config.num_blocks + 6
    assert names.keys() == checkpoint.parameter_shapes(MlpMixer(config)).keys()


def test_architectures_are_timms_where_it_has_them() -> None:
    for name, entry in CATALOG.items():
        info = ModelInfo(entry.config, entry.preprocess, entry.labels)
        architecture = timm.timm_config(info)["architecture"]
        if name.startswith("mixer_s8") or name == "cifar10":
            assert architecture == timm.UNNAMED
        else:
            assert architecture == name.split(".")[0]


TIMM_MODELS = {
    "b16": MixerConfig.variant("B/16", num_classes=5, num_blocks=12),
    "s32_wide": MixerConfig.variant("S/32", image_size=(64, 96), num_classes=3),
    "s32_grey": MixerConfig.variant("S/32", image_size=64, in_channels=1, num_classes=3),
    "s16_four_channels": MixerConfig.variant("S/16", image_size=32, in_channels=4, num_classes=3),
    "s32_widths": MixerConfig.variant(
        "S/32", image_size=64, tokens_mlp_dim=61, channels_mlp_dim=122, num_classes=2
    ),
    "resmlp_wide": MixerConfig.variant("ResMLP-S12", image_size=(64, 96), num_classes=5),
    "gmlp_grey": MixerConfig.variant(
        "gMLP-Ti/16", image_size=(64, 96), in_channels=1, num_classes=5
    ),
    "gmixer_wide": MixerConfig.variant("gMixer-12", image_size=(64, 96), num_classes=5),
}


def timm_model(name: str) -> tuple[MlpMixer, ModelInfo]:
    """A random model that timm has a name for, as tests/reference/make_timm_configs.py had it."""
    mx.random.seed(0)
    config = TIMM_MODELS[name]
    model = MlpMixer(config)
    model.head.weight = mx.random.normal(model.head.weight.shape) * config.hidden_dim**-0.5
    half = (0.5,) * config.in_channels
    labels = tuple(f"class {i}" for i in range(config.num_classes)) if name == "b16" else ()
    return model, ModelInfo(config, Preprocess(config.image_size, mean=half, std=half), labels)


@pytest.mark.parametrize("name", TIMM_MODELS)
def test_timm_and_transformers_load_what_they_have_a_name_for(golden: Path, name: str) -> None:
    """With these configs they did, and agreed within 1e-4; other patch sizes have no name."""
    known = json.loads((golden / "timm_configs.json").read_text("utf-8"))[name]
    info = timm_model(name)[1]
    assert timm.timm_config(info) == known
    assert timm.notes(info) == []
    for change in ({"patch_size": 8}, {"num_blocks": 3}, {"hidden_dim": 100}):
        other = dataclasses.replace(info, config=info.config.replace(**change))
        assert timm.timm_config(other)["architecture"] == "mlp_mixer_custom"
        assert "timm has no name for a" in timm.notes(other)[0]


def test_what_timm_computes_otherwise_is_said() -> None:
    config = MixerConfig.variant("B/16", hidden_act="gelu_tanh", layer_norm_eps=1e-5)
    notes = timm.notes(ModelInfo(config, Preprocess((224, 224))))
    assert [note.split(";")[0] for note in notes] == [
        "the model was trained with gelu_tanh",
        "the model was trained with layer_norm_eps 1e-05",
    ]


def test_the_form_of_gelu_survives(golden: Path, tmp_path: Path) -> None:
    convert(golden / "jax_square.npz", tmp_path / "model")
    export(tmp_path / "model", tmp_path / "out", format="timm")
    assert convert(tmp_path / "out", tmp_path / "back").info.config.hidden_act == "gelu_tanh"


def test_nothing_is_replaced_unasked(golden: Path, tmp_path: Path) -> None:
    source = golden / "jax_square.npz"
    file, folder = tmp_path / "file.npz", tmp_path / "folder.npz"
    file.write_text("precious")
    for form in ("jax", "timm"):
        with pytest.raises(CheckpointError, match=r"file\.npz already exists; .* `force=True`"):
            export(source, file, format=form)
    assert file.read_text() == "precious"
    folder.mkdir()
    (folder / "thesis.txt").touch()
    for form in ("jax", "timm"):
        with pytest.raises(CheckpointError):
            export(source, folder, format=form, force=True)
    export(source, file, format="jax", force=True)
    assert np.load(file).files
    with pytest.raises(CheckpointError, match=r"call it .*out\.npz"):
        export(source, tmp_path / "out.txt", format="jax")
    assert not (tmp_path / "out.txt").exists()
    with pytest.raises(ConfigError, match="timm, jax"):
        export(source, tmp_path / "other", format="tflite")  # type: ignore[arg-type]


def test_timm_computes_the_widths_from_the_ratios() -> None:
    """Its block computes `int(ratio * dim)`, which misses 61 of 7 by the plain quotient."""
    assert int(61 / 7 * 7) == 60
    for dim in range(1, 400):
        for width in range(1, 400):
            assert int(timm.mlp_ratio(width, dim) * dim) == width
    config = MixerConfig.variant("S/32", hidden_dim=7, tokens_mlp_dim=61, channels_mlp_dim=122)
    text = json.dumps(timm.timm_config(ModelInfo(config, Preprocess((224, 224)))))
    args = json.loads(text)["model_args"]
    assert [int(ratio * args["embed_dim"]) for ratio in args["mlp_ratio"]] == [61, 122]


def test_without_a_head(tmp_path: Path) -> None:
    config = MixerConfig.variant("S/32", image_size=64, num_classes=0)
    model = MlpMixer(config)
    tensors = foreign_tensors(model, JAX)
    assert not [name for name in tensors if name.startswith("head")]
    assert tensors["stem/kernel"].shape == (32, 32, 3, 512)
    info = ModelInfo(config, Preprocess((64, 64)))
    assert timm.timm_config(info)["num_classes"] == 0


@pytest.mark.parametrize(
    "variant",
    [
        name if name == "S/32" else pytest.param(name, marks=pytest.mark.slow)
        for name, sizes in VARIANTS.items()
        if sizes["model_type"] == "mlp_mixer"
    ],
)
def test_round_trips_of_every_variant(tmp_path: Path, variant: str) -> None:
    """Source, converted and exported are equal: jax -> native -> timm -> native -> jax."""
    config = MixerConfig.variant(variant)
    weights = numpy_mixer.random_weights(
        np.random.default_rng(0),
        num_tokens=config.num_tokens,
        patch=config.patch_size,
        channels=3,
        dim=config.hidden_dim,
        tokens_mlp=config.tokens_mlp_dim,
        channels_mlp=config.channels_mlp_dim,
        blocks=config.num_blocks,
        classes=1000,
    )
    np.savez(tmp_path / "source.npz", **weights)
    assert convert(tmp_path / "source.npz", tmp_path / "a").info.config.variant_name == variant
    export(tmp_path / "a", tmp_path / "timm", format="timm")
    converted = load_file(tmp_path / "timm" / "model.safetensors")
    # What the importer doesn't do: the axes here are written out, layer by layer.
    theirs = weights["MixerBlock_0/token_mixing/Dense_0/kernel"].T
    assert np.array_equal(converted["blocks.0.mlp_tokens.fc1.weight"], theirs)
    stem = np.moveaxis(weights["stem/kernel"], (3, 2), (0, 1))
    assert np.array_equal(converted["stem.proj.weight"], stem)
    convert(tmp_path / "timm", tmp_path / "b")
    export(tmp_path / "b", tmp_path / "back.npz", format="jax")
    equal(dict(np.load(tmp_path / "back.npz")), weights)
