"""Core ML packages as saved, computed by NumPy from Apple's definitions; on a Mac by Core ML."""

import json
import shutil
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from exported import random_model
from PIL import Image
from reference import numpy_mil

from mixer_mlx import CheckpointError, ConfigError, MixerConfig, ModelInfo, Preprocess
from mixer_mlx.convert import ExportOptions, export
from mixer_mlx.convert.export import coreml, formats
from mixer_mlx.model import MlpMixer

ct = pytest.importorskip("coremltools", reason="NOT RUN: needs the extra coreml")

SMALL = MixerConfig(
    image_size=(24, 40),
    patch_size=8,
    num_blocks=1,
    hidden_dim=32,
    tokens_mlp_dim=24,
    channels_mlp_dim=48,
    num_classes=7,
    hidden_act="gelu_tanh",
)
EXACT = ExportOptions(compute_precision="float32")


def write(path: Path, model: MlpMixer, info: ModelInfo, options: ExportOptions = EXACT) -> Path:
    formats.export(model, info, path, format="coreml", options=options)
    return path


def pixels(config: MixerConfig) -> np.ndarray:
    shape = (1, *config.image_size, config.in_channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def close(probabilities: np.ndarray, logits: np.ndarray, limit: float) -> None:
    logits = logits.astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    assert np.abs(np.log(probabilities) - expected).max() < limit


def logits_of(model: MlpMixer, info: ModelInfo, images: np.ndarray) -> np.ndarray:
    return np.array(model(mx.array(info.preprocess.normalize(images))))


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        SMALL.replace(hidden_act="gelu", in_channels=1, layer_norm_eps=1e-3),
        SMALL.replace(model_type="resmlp", tokens_mlp_dim=0),
        SMALL.replace(model_type="gmlp", tokens_mlp_dim=0),
        SMALL.replace(model_type="gmixer", hidden_act="silu"),
    ],
    ids=["not square", "grey, erf, another eps", "resmlp", "gmlp", "gmixer"],
)
def test_the_saved_program_computes_our_probabilities(tmp_path: Path, config: MixerConfig) -> None:
    model, info = random_model(config)
    mean = (0.4, 0.5, 0.7)[: config.in_channels]
    info = ModelInfo(config, Preprocess(config.image_size, mean=mean, std=mean, crop_pct=1))
    path = write(tmp_path / "m.mlpackage", model, info)
    images = pixels(config)
    values = numpy_mil.run(path, images.transpose(0, 3, 1, 2))
    close(values["probabilities"], logits_of(model, info, images), 1e-5)


@pytest.mark.parametrize(
    ("precision", "limit", "mib"), [("float32", 1e-5, 4.4), ("float16", 2e-3, 2.2)]
)
def test_the_built_in_model_agrees_with_timm(  # type: ignore[no-untyped-def]
    golden: Path, tmp_path: Path, capfd, precision, limit, mib
) -> None:
    """Logits that timm computed, of images as files give them; nothing is said on the way."""
    with np.load(golden / "timm_cifar10" / "expected.npz") as arrays:
        images = arrays["pictures"][:2]
    expected = np.load(golden / "built_in.npz")["logits"]
    path = tmp_path / "cifar10.mlpackage"
    export("cifar10", path, format="coreml", options=ExportOptions(compute_precision=precision))
    assert capfd.readouterr() == ("", "")
    for image, logits in zip(images, expected, strict=False):
        values = numpy_mil.run(path, image.transpose(2, 0, 1)[None])
        close(values["probabilities"][0], logits, limit)
    files = [file for file in path.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) / 2**20 == pytest.approx(mib, abs=0.1)
    assert {file.stat().st_mode & 0o777 for file in files} == {
        tmp_path.stat().st_mode & 0o666 | 0o644
    }


def test_what_xcode_shows(tmp_path: Path) -> None:
    export("cifar10", tmp_path / "m.mlpackage", format="coreml")
    model = ct.models.MLModel(str(tmp_path / "m.mlpackage"), skip_model_load=True)
    said = model.get_spec().description
    (given,) = said.input
    assert (given.name, given.type.imageType.width, given.type.imageType.height) == (
        "image",
        32,
        32,
    )
    assert [output.name for output in said.output] == ["classLabel", "classLabel_probs"]
    assert said.metadata.license == "apache-2.0"
    assert said.metadata.versionString.startswith("mixer-mlx ")
    assert "32 x 32" in given.shortDescription
    extra = dict(said.metadata.userDefined)
    assert json.loads(extra["mixer_mlx.preprocess"])["mean"] == [0.5] * 3
    assert json.loads(extra["mixer_mlx.source"])["name"] == "cifar10"


def test_minimum_target(tmp_path: Path) -> None:
    """Core ML's specification versions: 6 opens on iOS 15, 9 on iOS 18."""
    for target, version in (("iOS15", 6), ("iOS18", 9)):
        options = ExportOptions(minimum_target=target)  # type: ignore[arg-type]
        path = write(tmp_path / f"{target}.mlpackage", *random_model(SMALL), options)
        assert numpy_mil.load(path)[0].specificationVersion == version


@pytest.mark.parametrize(("size", "largest"), [((400, 400), 0), ((500, 400), 40)])
def test_visions_centre_crop_gives_what_predict_sees(  # type: ignore[no-untyped-def]
    tmp_path: Path, cat: Path, size, largest
) -> None:
    """Vision cuts out the centre, in the shape of the input, and resizes it; here Pillow does.

    The published preprocessing resizes first, to whole pixels, which shifts what isn't square by a
    fraction of a pixel.
    """
    config = SMALL.replace(image_size=(56, 56))
    model, _ = random_model(config)
    info = ModelInfo(config, Preprocess(config.image_size, crop_pct=0.875))
    path = write(tmp_path / "m.mlpackage", model, info)
    photo = Image.open(cat).convert("RGB").resize(size)
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    square = photo.crop((left, top, left + side, top + side)).resize((64, 64), Image.BICUBIC)
    values = numpy_mil.run(path, np.asarray(square).transpose(2, 0, 1)[None])
    seen = info.preprocess(photo)
    difference = np.abs(values["centre"][0].transpose(1, 2, 0) * 255 - seen)
    assert difference.max() <= largest + 1e-3
    assert difference.mean() < 3
    close(values["probabilities"], logits_of(model, info, seen[None]), 1e-5 if not largest else 0.1)


def test_arrays_and_models_without_a_head(tmp_path: Path) -> None:
    config = SMALL.replace(num_classes=0, in_channels=4)
    model, info = random_model(config)
    with pytest.raises(ConfigError, match=r"expects 4 channels .* use the input"):
        write(tmp_path / "m.mlpackage", model, info)
    options = ExportOptions(compute_precision="float32", input="array")
    path = write(tmp_path / "m.mlpackage", model, info, options)
    images = pixels(config)
    values = numpy_mil.run(path, info.preprocess.normalize(images))
    expected = logits_of(model, info, images)
    assert np.abs(values["pre_logits"] - expected).max() < 1e-5 * np.abs(expected).max()


def test_labels_tell_classes_apart() -> None:
    info = ModelInfo(SMALL, Preprocess((24, 40)), ("crane", "a", "crane", "\udcff", "b", "c", "d"))
    expected = ["crane (0)", "a", "crane (2)", "\\udcff", "b", "c", "d"]
    assert coreml.class_labels(info) == expected
    assert coreml.class_labels(ModelInfo(SMALL, Preprocess((24, 40)))) == list("0123456")


def test_packages_are_replaced_only_when_asked(tmp_path: Path) -> None:
    path, album = tmp_path / "m.mlpackage", tmp_path / "album.mlpackage"
    export("cifar10", path, format="coreml")
    with pytest.raises(CheckpointError, match="already exists"):
        export("cifar10", path, format="coreml")
    export("cifar10", path, format="coreml", force=True)
    album.mkdir()
    (album / "photo.jpg").touch()
    with pytest.raises(CheckpointError, match="isn't a package"):
        export("cifar10", album, format="coreml", force=True)
    with pytest.raises(CheckpointError, match=r"call it .*other\.mlpackage"):
        export("cifar10", tmp_path / "other", format="coreml")
    assert {entry.name for entry in tmp_path.iterdir()} == {"m.mlpackage", "album.mlpackage"}


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """coremltools copies from a temporary folder, and reports every file at once."""
    faults = [("a", "b", f"[Errno 28] No space left on device: '{name}'") for name in "ab"]

    def full(*_: object, **__: object) -> None:
        raise shutil.Error(faults)

    monkeypatch.setattr(shutil, "copytree", full)
    monkeypatch.setattr(shutil, "move", full)
    with pytest.raises(CheckpointError, match=r"written: \[Errno 28\] No space left on device\.$"):
        formats.export(*random_model(SMALL), tmp_path / "m.mlpackage", format="coreml")
    assert not list(tmp_path.iterdir())


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    for version, sentence in (((3, 13), r"mixer-mlx\[coreml\]"), ((3, 14), "Python 3.11, 3.12 or")):
        monkeypatch.setattr(sys, "version_info", version)
        with pytest.raises(ConfigError, match=sentence):
            export("cifar10", tmp_path / "m.mlpackage", format="coreml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "darwin", reason="NOT RUN: Core ML computes on a Mac only")
def test_core_ml_itself(golden: Path, tmp_path: Path) -> None:
    with np.load(golden / "timm_cifar10" / "expected.npz") as arrays:
        images = arrays["pictures"][:2]
    expected = np.load(golden / "built_in.npz")["logits"]
    export("cifar10", tmp_path / "m.mlpackage", format="coreml", options=EXACT)
    units = ct.ComputeUnit.CPU_ONLY
    model = ct.models.MLModel(str(tmp_path / "m.mlpackage"), compute_units=units)
    labels = model.get_spec().description.output
    assert labels[0].name == "classLabel"
    for image, logits in zip(images, expected, strict=False):
        found = model.predict({"image": Image.fromarray(image)})["classLabel_probs"]
        close(np.array(list(found.values())), logits, 1e-2)
