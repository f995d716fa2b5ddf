"""Imported weights against files that other people's code wrote."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from reference import numpy_mixer
from safetensors.numpy import load_file, save_file

from mixer_mlx import ConfigError, ConversionError, MixerError, SourceError, checkpoint, load
from mixer_mlx.convert import Settings, convert, import_model

SIZE = (24, 32)


def parameters(path: Path, size: tuple[int, int] | None = SIZE) -> dict[str, np.ndarray]:
    model = import_model(path, settings=Settings(image_size=size)).model
    return {name: np.array(value) for name, value in tree_flatten(model.parameters())}


def test_the_same_weights_from_jax_and_from_timm_are_equal(golden: Path) -> None:
    jax = parameters(golden / "jax_from_timm.npz")
    timm = parameters(golden / "timm_tiny.safetensors")
    assert jax.keys() == timm.keys()
    for name in jax:
        assert np.array_equal(jax[name], timm[name]), name


def test_the_form_of_gelu_belongs_to_the_source(golden: Path) -> None:
    for name, act in (("jax_from_timm.npz", "gelu_tanh"), ("timm_tiny.safetensors", "gelu")):
        imported = import_model(golden / name, settings=Settings(image_size=SIZE))
        assert imported.info.config.hidden_act == act
        assert any(act in sentence for sentence in imported.assumed)


def rewrite(source: Path, target: Path, rename) -> Path:  # type: ignore[no-untyped-def]
    with np.load(source) as arrays:
        renamed = [rename(name, arrays[name]) for name in arrays.files]
    np.savez(target, **dict(renamed))
    return target


def older(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """What checkpoints were called before the official files: see big_vision's reader of 2022."""
    name = name.replace("MixerBlock_", "Mixer/encoderblock_")
    name = name.replace("pre_head_layer_norm", "Mixer/encoder_norm").replace("stem/", "embedding/")
    for i in (0, 1):
        if f"_mixing/Dense_{i}/" in name:
            value = value[None] if value.ndim == 2 else value[None, :, None]
        for old, new in (("kernel", f"kernel{i + 1}"), ("bias", f"bias{i + 1}")):
            name = name.replace(f"_mixing/Dense_{i}/{old}", f"_mixing_phase_0/{new}")
    return name, value


@pytest.mark.parametrize(
    "rename",
    [
        older,
        lambda name, value: (f"opt/target/{name}", value),
        lambda name, value: (f"params/{name}", value),
        lambda name, value: (name, np.asfortranarray(value)),
        lambda name, value: (name, value.astype(np.float64)),
    ],
    ids=["older", "opt/target", "params", "fortran", "float64"],
)
def test_other_layouts_of_the_official_names(golden: Path, tmp_path: Path, rename) -> None:  # type: ignore[no-untyped-def]
    path = rewrite(golden / "jax_tiny.npz", tmp_path / "renamed.npz", rename)
    expected = parameters(golden / "jax_tiny.npz")
    found = parameters(path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name


def test_headless_weights_give_pre_logits(golden: Path, tmp_path: Path) -> None:
    with np.load(golden / "jax_tiny.npz") as arrays:
        np.savez(
            tmp_path / "headless.npz",
            **{name: arrays[name] for name in arrays.files if not name.startswith("head/")},
        )
    model = import_model(tmp_path / "headless.npz", settings=Settings(image_size=SIZE)).model
    expected = np.load(golden / "jax_tiny_expected.npz")
    pre_logits = np.array(model(mx.array(expected["images"])))
    assert abs(pre_logits - expected["pre_logits"]).max() < 1e-5


def test_training_state_beside_the_model_is_left_out_and_said(golden: Path, tmp_path: Path) -> None:
    with np.load(golden / "jax_tiny.npz") as arrays:
        values = {f"opt/target/{name}": arrays[name] for name in arrays.files}
    expected = parameters(golden / "jax_tiny.npz")
    for step in (np.float32(7), np.int32(7)):
        np.savez(tmp_path / "state.npz", **values, **{"opt/state/step": step})
        imported = import_model(tmp_path / "state.npz", settings=Settings(image_size=SIZE))
        assert "opt/state/step is training state and was left out" in imported.assumed
        assert parameters(tmp_path / "state.npz").keys() == expected.keys()


@pytest.mark.parametrize("prefix", ["backbone.", "net.", "net.mixer.", "student/", "module.net."])
def test_a_prefix_of_all_names_is_taken_off_and_said(
    golden: Path, tmp_path: Path, prefix: str
) -> None:
    weights = load_file(golden / "timm_tiny.safetensors")
    path = tmp_path / "w.safetensors"
    save_file({prefix + name: value for name, value in weights.items()}, path)
    imported = import_model(path, settings=Settings(image_size=SIZE))
    assert f"{prefix} is the prefix of all names" in imported.assumed
    expected = parameters(golden / "timm_tiny.safetensors")
    assert all(np.array_equal(value, expected[name]) for name, value in parameters(path).items())
    with pytest.raises(ConversionError, match="names of a known MLP-Mixer"):
        save_file({**load_file(path), "classifier.weight": np.zeros(1, np.float32)}, path)
        import_model(path, settings=Settings(image_size=SIZE))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_integers_outside_of_the_model_are_left_out_and_said(
    golden: Path, tmp_path: Path, dtype: type[np.generic]
) -> None:
    """As torch.optim.swa_utils.AveragedModel and torchmetrics write them beside the model."""
    weights = load_file(golden / "timm_tiny.safetensors")
    beside = {name: np.ones((), dtype) for name in ("n_averaged", "train_acc.tp")}
    path = tmp_path / "w.safetensors"
    save_file({**beside, **{f"module.{name}": value for name, value in weights.items()}}, path)
    imported = import_model(path, settings=Settings(image_size=SIZE))
    assert "n_averaged; train_acc.tp are training state and were left out" in imported.assumed
    expected = parameters(golden / "timm_tiny.safetensors")
    assert all(np.array_equal(value, expected[name]) for name, value in parameters(path).items())


@pytest.mark.parametrize("name", ["head.bias", "head.scale", "blocks.0.mask"])
def test_integers_in_the_model_are_refused(golden: Path, tmp_path: Path, name: str) -> None:
    weights = load_file(golden / "timm_tiny.safetensors")
    weights[name] = np.zeros(len(weights["head.bias"]), np.int8)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ConversionError, match=f"{name} holds integers"):
        import_model(tmp_path / "w.safetensors", settings=Settings(image_size=SIZE))


def test_bfloat16_as_numpy_writes_it_for_jax(golden: Path, tmp_path: Path) -> None:
    def cut(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
        return name, (value.view(np.uint32) >> 16).astype(np.uint16).view("V2")

    path = rewrite(golden / "jax_tiny.npz", tmp_path / "bf16.npz", cut)
    with np.load(golden / "jax_tiny.npz") as arrays:
        bias = (arrays["stem/bias"].view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert np.array_equal(parameters(path)["stem.bias"], bias)


def spoiled(golden: Path, spoil) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    with np.load(golden / "jax_tiny.npz") as arrays:
        values = dict(arrays)
    spoil(values)
    return values


def test_every_missing_tensor_is_named(golden: Path, tmp_path: Path) -> None:
    with np.load(golden / "jax_tiny.npz") as arrays:
        values = dict(arrays)
    for name in values:
        np.savez(tmp_path / "w.npz", **{other: values[other] for other in values if other != name})
        with pytest.raises(ConversionError) as caught:
            import_model(tmp_path / "w.npz", settings=Settings(image_size=SIZE))
        # Without the stem's kernel a file is not known to be a Mixer's; without the head's, its
        # bias is left over.
        named = {"stem/kernel": "a known MLP-Mixer", "head/kernel": "head/bias is left over"}
        assert named.get(name, f"{name} is missing") in str(caught.value)


def test_every_tensor_of_another_shape_is_refused(golden: Path, tmp_path: Path) -> None:
    with np.load(golden / "jax_tiny.npz") as arrays:
        values = dict(arrays)
    # The architecture is read off these: where they are wrong, others are said not to fit.
    telling = ("stem/kernel", "MixerBlock_0/token_mixing/Dense_0/kernel")
    telling += ("MixerBlock_0/channel_mixing/Dense_0/kernel", "head/kernel")
    for name, value in values.items():
        np.savez(tmp_path / "w.npz", **{**values, name: np.concatenate([value, value])})
        with pytest.raises((ConversionError, ConfigError)) as caught:
            import_model(tmp_path / "w.npz", settings=Settings(image_size=SIZE))
        assert name in str(caught.value) or name in telling


def test_all_faults_are_listed_at_once(golden: Path, tmp_path: Path) -> None:
    def spoil(values: dict[str, np.ndarray]) -> None:
        del values["MixerBlock_1/token_mixing/Dense_0/bias"]
        values["MixerBlock_0/extra"] = np.zeros(3, np.float32)

    np.savez(tmp_path / "spoiled.npz", **spoiled(golden, spoil))
    with pytest.raises(
        ConversionError,
        match=r"MixerBlock_1/token_mixing/Dense_0/bias is missing; MixerBlock_0/extra is left over",
    ):
        import_model(tmp_path / "spoiled.npz", settings=Settings(image_size=SIZE))


def test_a_swapped_width_is_noticed(tmp_path: Path) -> None:
    """Weights made by an implementation that takes D_S for D_C and the other way round."""
    rng = np.random.default_rng(0)
    weights = numpy_mixer.random_weights(
        rng,
        num_tokens=4,
        patch=4,
        channels=3,
        dim=8,
        tokens_mlp=6,
        channels_mlp=10,
        blocks=1,
        classes=2,
    )
    kernel = weights["MixerBlock_0/channel_mixing/Dense_1/kernel"]
    weights["MixerBlock_0/channel_mixing/Dense_1/kernel"] = kernel.T.copy()
    np.savez(tmp_path / "swapped.npz", **weights)
    with pytest.raises(ConversionError, match=r"channel_mixing/Dense_1/kernel has shape \[8, 10\]"):
        import_model(tmp_path / "swapped.npz")


def test_tokens_that_make_no_square_need_a_size(golden: Path) -> None:
    with pytest.raises(ConversionError, match=r"12 patches of 8x8.*image_size="):
        import_model(golden / "jax_tiny.npz")
    with pytest.raises(ConversionError, match=r"32x32 has 16 patches.*made for 12"):
        import_model(golden / "jax_tiny.npz", settings=Settings(image_size=(32, 32)))
    with pytest.raises(ConfigError, match=r"25x32"):
        import_model(golden / "jax_tiny.npz", settings=Settings(image_size=(25, 32)))


def test_a_square_is_assumed_and_said(golden: Path) -> None:
    imported = import_model(golden / "jax_square.npz")
    assert imported.info.config.image_size == (32, 32)
    assert any("32x32" in sentence for sentence in imported.assumed)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["conv1.weight", "layer1.0.conv1.weight"], "conv1.weight"),
        (["stem.weight", "blocks.0.norm1.weight"], "folder"),
    ],
)
def test_strangers_are_refused(tmp_path: Path, names: list[str], says: str) -> None:
    save_file({name: np.zeros((2, 2), np.float32) for name in names}, tmp_path / "w.safetensors")
    with pytest.raises(ConversionError, match=says):
        import_model(tmp_path / "w.safetensors")


def test_a_repository_of_timms(golden: Path, tmp_path: Path) -> None:
    imported = convert(golden / "timm_cifar10", tmp_path / "model")
    assert imported.assumed == ()
    model, info = checkpoint.load(tmp_path / "model"), checkpoint.read_info(tmp_path / "model")
    assert info.labels[3] == "cat"
    assert info.preprocess.to_dict() == {
        "image_size": [32, 32],
        "resize_mode": "shorter",
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    assert info.source["license"] == "apache-2.0"
    assert info.source["layout"] == "timm"
    expected = np.load(golden / "timm_cifar10" / "expected.npz")
    images = mx.array(expected["pictures"]) / 127.5 - 1
    logits = np.array(model(images))
    assert abs(logits - expected["logits"]).max() < 1e-4
    assert (logits.argmax(1) == expected["logits"].argmax(1)).all()


def test_a_config_of_older_timms(golden: Path, tmp_path: Path) -> None:
    """What pretrained_cfg holds stands at the top, and its label_names are called labels."""
    folder = shutil.copytree(golden / "timm_cifar10", tmp_path / "repo")
    config = json.loads((folder / "config.json").read_text())
    names = config.pop("label_names")
    older = {**config, **config.pop("pretrained_cfg"), "labels": names}
    (folder / "config.json").write_text(json.dumps(older))
    assert import_model(folder).info.labels == tuple(names)
    (folder / "config.json").write_text(json.dumps({**older, "labels": {"0": "a"}}))
    with pytest.raises(ConfigError, match="labels must be a list of names"):
        import_model(folder)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"architecture": "gmixer_24_224"}, ConversionError, "family, gMixer"),
        ({"model_args": {"act_layer": "relu"}}, ConversionError, "relu"),
        ({"pretrained_cfg": {"interpolation": "lanczos"}}, ConversionError, "lanczos"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, ConversionError, "border"),
        ({"pretrained_cfg": {"crop_pct": 0}}, ConfigError, "crop_pct"),
        ({"pretrained_cfg": {"input_size": [3, 64, 64]}}, ConversionError, "made for 64"),
        ({"pretrained_cfg": {"input_size": 32}}, ConfigError, "input_size"),
        ({"label_names": ["a", "b"]}, ConfigError, "2 labels for 10 classes"),
    ],
)
def test_a_config_of_timms_that_can_not_be_followed(
    golden: Path, tmp_path: Path, change: dict[str, object], error: type[MixerError], says: str
) -> None:
    folder = shutil.copytree(golden / "timm_cifar10", tmp_path / "repo")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(error, match=says):
        import_model(folder)


def test_a_folder_is_a_folder_whatever_it_is_called(golden: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(golden / "timm_cifar10", tmp_path / "model.safetensors")
    convert(folder, tmp_path / "out.npz")
    assert len(load(tmp_path / "out.npz").labels) == 10


def test_a_native_folder_goes_in_too(golden: Path, tmp_path: Path) -> None:
    convert(golden / "timm_cifar10", tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", dtype="bfloat16")
    half, info = checkpoint.load(tmp_path / "b"), checkpoint.read_info(tmp_path / "b")
    full = checkpoint.load(tmp_path / "a")
    assert half.dtype == mx.bfloat16
    assert info.labels[3] == "cat"
    assert mx.array_equal(half.stem.weight, full.stem.weight.astype(mx.bfloat16))


def test_float16_is_rounded_once(golden: Path, tmp_path: Path) -> None:
    convert(golden / "timm_cifar10", tmp_path / "half", dtype="float16")
    stored = load_file(tmp_path / "half" / "model.safetensors")
    source = load_file(golden / "timm_cifar10" / "model.safetensors")
    assert np.array_equal(stored["head.weight"], source["head.weight"].astype(np.float16))


@pytest.mark.parametrize("name", ["nothing", "empty", "text.npz", "folder"])
def test_what_is_no_source(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text.npz").write_text("these are no weights")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match=name):
        convert(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_replaced_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights and its class names would be of two models."""
    from mixer_mlx import catalog

    info = checkpoint.read_info(catalog.BUILT_IN_FOLDER)
    model = checkpoint.load(catalog.BUILT_IN_FOLDER)
    folder, load = tmp_path / "model", checkpoint.load
    checkpoint.save(folder, model, info)

    def swapped(*args: object) -> object:
        checkpoint.save(folder, model, info, force=True)
        return load(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "load", swapped)
    with pytest.raises(SourceError, match="was replaced while it was read"):
        import_model(folder)
