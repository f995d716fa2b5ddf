"""Names in Unicode's forms: composed (NFC), and decomposed (NFD), as on macOS's older disks."""

import unicodedata
import zipfile
from pathlib import Path

import pytest

from mixer_mlx.cli.predict.command import find_classes
from mixer_mlx.config import MixerConfig
from mixer_mlx.data.read import match_classes, read_split, read_splits
from mixer_mlx.errors import ConfigError
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.training.fingerprint import fingerprint

COMPOSED, DECOMPOSED = "Caf\u00e9", "Cafe\u0301"


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("forms", [(DECOMPOSED, COMPOSED), (COMPOSED, DECOMPOSED)])
def test_train_and_val_have_the_same_class(
    tmp_path: Path, forms: tuple[str, str], packed: bool
) -> None:
    names = [
        f"{split}/{name}/{split}.png"
        for split, form in zip(("train", "val"), forms, strict=True)
        for name in (form, "Cafz", "Caff")
    ]
    data = make(tmp_path / "data", *names)
    if packed:
        data = tmp_path / "data.zip"
        with zipfile.ZipFile(data, "w") as archive:
            for name in names:
                archive.writestr(name, b"")
    for part in read_splits(data):
        assert part.classes == ("Caff", "Cafz", COMPOSED)  # in the order of code points
        assert part.labels.tolist() == [0, 1, 2]
        shown = [unicodedata.normalize("NFC", str(path)) for path in part.paths]
        assert [path.split("/")[-2] for path in shown] == list(part.classes)
        assert match_classes(part.classes, [COMPOSED, "Caff", "Cafz"]) == [1, 2, 0]


def test_a_run_may_be_resumed_on_another_disk(tmp_path: Path) -> None:
    """HFS+ decomposes all names that are copied to it."""
    one = make(tmp_path / "a", f"{COMPOSED}/\u00fc.png", "x/y.png")
    other = make(tmp_path / "b", f"{DECOMPOSED}/u\u0308.png", "x/y.png")
    assert fingerprint(read_split(one)[0]) == fingerprint(read_split(other)[0])


@pytest.mark.parametrize("written", ["\u00fc.png", "u\u0308.png"])
@pytest.mark.parametrize("stored", ["\u00fc.png", "u\u0308.png"])
def test_paths_and_labels_of_a_list(tmp_path: Path, written: str, stored: str) -> None:
    make(tmp_path, stored, "b.png")
    lines = ["path,label", f"{written},{DECOMPOSED}", f"b.png,{COMPOSED}"]
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    found = read_split(tmp_path / "list.csv")[0]
    assert found.classes == (COMPOSED,)
    assert all(isinstance(path, Path) and path.exists() for path in found.paths)


def test_splits_by_name(tmp_path: Path) -> None:
    make(tmp_path, *(f"{DECOMPOSED}/{name}/1.png" for name in "ab"), "other/a/1.png")
    assert len(read_split(tmp_path, COMPOSED)[0]) == 2
    lines = ["path,label,split", f"{DECOMPOSED}/a/1.png,a,{DECOMPOSED}"]
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    assert len(read_split(tmp_path / "list.csv", COMPOSED)[0]) == 1


def test_labels_of_a_model() -> None:
    config = MixerConfig(
        image_size=(8, 8),
        patch_size=4,
        num_blocks=1,
        hidden_dim=8,
        tokens_mlp_dim=4,
        channels_mlp_dim=16,
        num_classes=2,
    )
    info = ModelInfo(config, Preprocess((8, 8)), (DECOMPOSED, "x"))
    assert info.labels == (COMPOSED, "x")
    assert find_classes([DECOMPOSED.upper()], info.labels) == {0}
    with pytest.raises(ConfigError):
        find_classes(["Cafe"], info.labels)
