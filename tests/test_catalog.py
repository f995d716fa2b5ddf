import json
from pathlib import Path

import pytest

from mixer_mlx import CATALOG, ConfigError, checkpoint, labels
from mixer_mlx.catalog import BUILT_IN_FOLDER

# Sizes in MiB as the listing of Google's bucket has them.
BUCKET = {
    "imagenet1k/Mixer-B_16.npz": 228.47,
    "imagenet1k/Mixer-L_16.npz": 794.29,
    "imagenet21k/Mixer-B_16.npz": 289.61,
    "imagenet21k/Mixer-L_16.npz": 875.78,
    "sam/Mixer-B_16.npz": 228.47,
    "sam/Mixer-B_32.npz": 230.04,
    "gsam/Mixer-B_16.npz": 228.47,
    "gsam/Mixer-B_32.npz": 230.04,
    "gsam/Mixer-S_16.npz": 70.71,
    "gsam/Mixer-S_32.npz": 72.91,
    "gsam/Mixer-S_8.npz": 78.79,
}
# Classes, and top-1 and ReaL of timm's results-imagenet.csv and results-imagenet-real.csv.
TIMM = {
    "mixer_b16_224.goog_in21k_ft_in1k": (1000, 76.616, 82.012),
    "mixer_l16_224.goog_in21k_ft_in1k": (1000, 72.084, 77.306),
    "mixer_b16_224.goog_in21k": (21843, None, None),
    "mixer_l16_224.goog_in21k": (21843, None, None),
    "mixer_b16_224.miil_in21k": (11221, None, None),
    "mixer_b16_224.miil_in21k_ft_in1k": (1000, 82.314, 87.230),
    "resmlp_big_24_224.fb_in22k_ft_in1k": (1000, 84.414, 89.024),
    "resmlp_big_24_224.fb_distilled_in1k": (1000, 83.594, 88.441),
    "resmlp_big_24_224.fb_in1k": (1000, 81.034, 85.697),
    "resmlp_36_224.fb_distilled_in1k": (1000, 81.150, 86.980),
    "resmlp_36_224.fb_in1k": (1000, 79.772, 85.623),
    "resmlp_24_224.fb_distilled_in1k": (1000, 80.766, 86.635),
    "resmlp_24_224.fb_in1k": (1000, 79.380, 85.277),
    "resmlp_24_224.fb_dino": (1000, None, None),
    "resmlp_12_224.fb_distilled_in1k": (1000, 77.948, 84.724),
    "resmlp_12_224.fb_in1k": (1000, 76.660, 83.566),
    "resmlp_12_224.fb_dino": (1000, None, None),
    "gmlp_s16_224.ra3_in1k": (1000, 79.652, 85.362),
    "gmixer_24_224.ra3_in1k": (1000, 78.048, 83.972),
}


def test_all_of_googles_files_with_their_sizes() -> None:
    ours = {entry.source: entry for entry in CATALOG.values() if entry.name not in TIMM}
    del ours[None]
    assert ours.keys() == BUCKET.keys()
    for source, mib in BUCKET.items():
        # What is over is the archive's headers.
        assert 0 <= mib - ours[source].download_bytes / 2**20 < 0.1
        assert ours[source].config.hidden_act == "gelu_tanh"
        assert ours[source].preprocess.mean == ours[source].preprocess.std == (0.5,) * 3


def test_all_of_timms_repositories(golden: Path) -> None:
    """`published.json` is timm's own list: tests/reference/make_siblings.py wrote it."""
    published = json.loads((golden / "siblings" / "published.json").read_text())
    assert published.keys() == TIMM.keys()
    for name, (classes, top1, real) in TIMM.items():
        entry = CATALOG[name]
        assert entry.source == f"hf://timm/{name}"
        assert (entry.config.num_classes, entry.top1, entry.real) == (classes, top1, real)
        family = name.split("_")[0]
        assert entry.config.hidden_act == ("silu" if family == "gmixer" else "gelu")
        theirs = published[name]
        assert (theirs["num_classes"], theirs["license"]) == (classes, entry.licence.lower())
        for field in ("interpolation", "crop_pct", "mean", "std"):
            assert entry.preprocess.to_dict()[field] == theirs[field], (name, field)
        assert (entry.note is not None) == ("goog_in21k_ft" in name or "dino" in name)
        assert bool(entry.labels) == ("dino" not in name)
    assert len(CATALOG) == len(BUCKET) + len(TIMM) + 1


def test_sizes_of_the_files_of_resmlp_on_the_hub() -> None:
    """61.4 MB is shown there for the files of ResMLP-S12, also for fb_dino's, which has a head."""
    for tag in ("fb_in1k", "fb_dino"):
        assert round(CATALOG[f"resmlp_12_224.{tag}"].download_bytes / 1e6, 1) == 61.4


def test_accuracies_say_where_they_were_published() -> None:
    for entry in CATALOG.values():
        assert (entry.top1 is None) == (entry.accuracy_source is None)


@pytest.mark.parametrize(
    ("name", "count", "index", "label"),
    [
        (
            "imagenet1k",
            1000,
            388,
            "giant panda, panda, panda bear, coon bear, Ailuropoda melanoleuca",
        ),
        ("imagenet1k", 1000, 0, "tench, Tinca tinca"),
        ("imagenet21k_goog", 21843, 0, "organism, being"),
        ("imagenet21k_miil", 11221, 1, "cell"),
    ],
)
def test_labels(name: str, count: int, index: int, label: str) -> None:
    names = labels.read_list(name)
    assert len(names) == count
    assert names[index] == label


def test_the_built_in_model_is_what_the_catalogue_says() -> None:
    info = checkpoint.read_info(BUILT_IN_FOLDER)
    entry = CATALOG["cifar10"]
    assert (info.config, info.preprocess) == (entry.config, entry.preprocess)
    assert str(entry.top1) in (BUILT_IN_FOLDER / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "cat\n\n dog \n"),
        ("l.json", '["cat", "dog"]'),
        ("l.json", '{"0": "cat", "1": "dog"}'),
        ("l.txt", "\ufeffcat\ndog"),
    ],
)
def test_a_users_labels(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    assert labels.read_file(tmp_path / name) == ("cat", "dog")


@pytest.mark.parametrize("text", ["", "3", '["a", 1]', '{"0": "a", "2": "b"}', "[" * 100_000])
def test_labels_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "l.json").write_text(text)
    with pytest.raises(ConfigError, match=r"l\.json"):
        labels.read_file(tmp_path / "l.json")
