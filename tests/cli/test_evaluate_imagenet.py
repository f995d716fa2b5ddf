"""ImageNet as it lies on people's disks, other lists of classes, and the ReaL labels."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from mixer_mlx import checkpoint, load
from mixer_mlx.config import MixerConfig
from mixer_mlx.data.read import read_split
from mixer_mlx.errors import ConfigError
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.labels import read_list, read_synsets
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo

CLASSES = [0, 134, 517, 999, 638, 639]  # two called crane, two maillot
NAMES = [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 7)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Mixer of ImageNet's 1,000 classes with random weights."""
    config = MixerConfig(
        image_size=(8, 8), patch_size=4, num_blocks=1, hidden_dim=16, tokens_mlp_dim=8,
        channels_mlp_dim=16, num_classes=1000,
    )  # fmt: skip
    mx.random.seed(3)
    mixer = MlpMixer(config)
    mixer.head.weight = mx.random.normal((1000, 16))
    info = ModelInfo(config, Preprocess((8, 8)), read_list("imagenet1k"))
    folder = tmp_path_factory.mktemp("model") / "imagenet"
    checkpoint.save(folder, mixer, info)
    return folder


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """Six images in one folder."""
    folder = tmp_path / "imagenet" / "val"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name, "PNG")
    return folder


@pytest.fixture
def logits(model: Path, val: Path) -> np.ndarray:
    """The model's, in the order of the names."""
    classifier = load(model, dtype="float32")
    pixels = np.stack([classifier.preprocess(val / name) for name in NAMES])
    return np.array(classifier.forward(pixels))


def evaluated(mixer, *args: object) -> dict[str, float]:  # type: ignore[no-untyped-def]
    run = mixer("evaluate", *args, "--format", "json", "--dtype", "float32")
    assert run.code == 0, run.err
    return json.loads(run.out)  # type: ignore[no-any-return]


def loss(logits: np.ndarray) -> float:
    logits = logits.astype(np.float64)
    return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(6), CLASSES]))


def write_truth(val: Path, kind: str) -> None:
    synsets = [read_synsets("imagenet1k")[i] for i in CLASSES]
    if kind == "val.txt":
        lines = [f"{name} {label}" for name, label in zip(NAMES, CLASSES, strict=True)]
        (val.parent / kind).write_text("\n".join(reversed(lines)))
    elif kind == "imagenet_2012_validation_synset_labels.txt":
        (val / kind).write_text("\n".join(synsets) + "\n")
    else:  # the kit's own numbers, here backwards
        savemat = pytest.importorskip("scipy.io").savemat
        wanted = {synset: 1000 - i for i, synset in enumerate(read_synsets("imagenet1k"))}
        kinds = [("ILSVRC2012_ID", float), ("WNID", object)]
        rows = np.array([(number, synset) for synset, number in wanted.items()], kinds)
        savemat(val / "meta.mat", {"synsets": rows})
        (val / kind).write_text("".join(f"{wanted[synset]}\n" for synset in synsets))


@pytest.mark.parametrize(
    "kind",
    [
        "val.txt",
        "imagenet_2012_validation_synset_labels.txt",
        "ILSVRC2012_validation_ground_truth.txt",
    ],
)
def test_a_flat_folder_with_labels_in_a_file(  # type: ignore[no-untyped-def]
    kind: str, mixer, model: Path, val: Path, logits: np.ndarray
) -> None:
    write_truth(val, kind)
    found = evaluated(mixer, val, "-m", model)
    assert found["loss"] == pytest.approx(loss(logits), abs=1e-4)
    assert found["top1"] == pytest.approx((logits.argmax(1) == CLASSES).mean())


def test_folders_by_synset_keep_classes_of_one_name_apart(  # type: ignore[no-untyped-def]
    mixer, model: Path, val: Path, logits: np.ndarray
) -> None:
    for name, label in zip(NAMES, CLASSES, strict=True):
        folder = val / read_synsets("imagenet1k")[label]
        folder.mkdir()
        (val / name).rename(folder / name)
    assert evaluated(mixer, val, "-m", model)["loss"] == pytest.approx(loss(logits), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("val.txt", f"{NAMES[0]} 1\n", "no line for ILSVRC2012_val_00000002"),
        ("val.txt", "a b c\n", "Expected lines of FILE LABEL"),
        ("val.txt", "", "Expected lines of FILE LABEL"),
        ("val.txt", "n01440764\n", "has 1 labels and .* 6 images"),
        ("ILSVRC2012_validation_ground_truth.txt", "5\n" * 6, "put the development kit's meta.mat"),
    ],
)
def test_labels_that_do_not_fit(name: str, text: str, why: str, val: Path) -> None:
    (val / name).write_text(text)
    with pytest.raises(ConfigError, match=why):
        read_split(val)


def test_real_labels(mixer, model: Path, val: Path, logits: np.ndarray, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write_truth(val, "val.txt")
    best = logits.argmax(1).tolist()
    other = [(i + 1) % 1000 for i in best]
    real = [[best[0]], [other[1]], [], [other[3], best[3]], [best[4], other[4]], []]
    (tmp_path / "real.json").write_text(json.dumps(real))
    found = evaluated(mixer, val, "-m", model, "--real", tmp_path / "real.json")
    assert (found["real_top1"], found["real_images"]) == (pytest.approx(3 / 4), 4)
    (val / "00.png").write_bytes((val / NAMES[0]).read_bytes())
    (val.parent / "val.txt").write_text(
        "\n".join(f"{name} 1" for name in ["00.png", *NAMES]) + "\n"
    )
    refused = mixer("evaluate", val, "-m", model, "--real", tmp_path / "real.json")
    assert refused.code == 1
    assert "named as ILSVRC2012_val_00000001.JPEG, not" in refused.err
    for text in ("{}", "[1]", "[[1000]]", "[[true]]", "[[1.5]]"):
        (tmp_path / "real.json").write_text(text)
        refused = mixer("evaluate", val, "-m", model, "--real", tmp_path / "real.json")
        assert refused.code == 1
        assert "doesn't hold ReaL labels" in refused.err


def test_only_the_classes_of_the_data(mixer, model: Path, val: Path, logits: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    """As on ImageNet-A and -R: the largest logit of the data's classes counts."""
    write_truth(val, "val.txt")
    found = evaluated(mixer, val, "-m", model, "--only-classes")
    few = logits[:, CLASSES].astype(np.float64)
    right = few[np.arange(6), np.arange(6)]
    assert found["top1"] == pytest.approx((few.argmax(1) == np.arange(6)).mean())
    assert found["loss"] == pytest.approx(np.mean(np.log(np.exp(few).sum(1)) - right), abs=1e-4)


@pytest.mark.parametrize("name", ["map.csv", "map.tsv", "map.json"])
def test_a_map_of_classes(  # type: ignore[no-untyped-def]
    name: str, mixer, model: Path, val: Path, logits: np.ndarray, tmp_path: Path
) -> None:
    called = [f"own name {i}" for i in range(6)]
    lines = [f"{n}\t{label}" for n, label in zip(NAMES, called, strict=True)]
    (tmp_path / "list.tsv").write_text(
        "path\tlabel\n" + "\n".join(f"{val}/{line}" for line in lines)
    )
    pairs = dict(zip(called, map(str, CLASSES), strict=True))
    if name == "map.json":
        (tmp_path / name).write_text(json.dumps(pairs))
    else:
        mark = "," if name == "map.csv" else "\t"
        (tmp_path / name).write_text("".join(f"{a}{mark}{b}\n" for a, b in pairs.items()))
    found = evaluated(mixer, tmp_path / "list.tsv", "-m", model, "--map", tmp_path / name)
    assert found["loss"] == pytest.approx(loss(logits), abs=1e-4)
    (tmp_path / "bad.csv").write_text("a,b,c\n")
    refused = mixer("evaluate", val, "-m", model, "--map", tmp_path / "bad.csv")
    assert "can't be used as a map of classes: expected lines of CLASS,LABEL" in refused.err


def test_the_published_figure_and_how_sure_the_measured_one_is(  # type: ignore[no-untyped-def]
    mixer, tmp_path: Path
) -> None:
    classes = load("cifar10").labels
    for i, name in enumerate(classes):
        (tmp_path / name).mkdir()
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
    found = evaluated(mixer, tmp_path, "-m", "cifar10")
    low, high = found["top1_low"], found["top1_high"]
    assert 0 <= low <= found["top1"] <= high <= 1
    assert found["published_top1"] == 0.8304
    assert found["difference"] == pytest.approx(found["top1"] - 0.8304)
    assert found["difference_low"] == pytest.approx(low - 0.8304)
    table = mixer("evaluate", tmp_path, "-m", "cifar10").out
    assert f"top1               {found['top1']:.2%} (95 %: {low:.1%} to {high:.1%})\n" in table
    (tmp_path / "truck" / "a.png").unlink()
    (tmp_path / "truck").rmdir()
    assert "published_top1" not in evaluated(mixer, tmp_path, "-m", "cifar10")
