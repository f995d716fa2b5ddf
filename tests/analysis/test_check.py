"""Planted faults, each found by name, and nothing else."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixer_mlx.analysis.check import (
    KINDS,
    Scan,
    class_findings,
    draw_findings,
    find,
    read_all_splits,
    scan,
)
from mixer_mlx.images.hashing import dhashes, reduced


def photo(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Soft blobs of colour, as photographs have them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save an image below tmp_path, by default with high JPEG quality."""

    def save(name: str, image: Image.Image, **options: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **({"quality": 95} | options))  # type: ignore[arg-type]
        return path

    return save


@pytest.fixture
def splits(save: Save, tmp_path: Path) -> Path:
    """Twelve different images for each of two classes to train, and three to validate."""
    seeds = iter(range(1000))
    for split, count in (("train", 12), ("val", 3)):
        for name in ("cat", "dog"):
            for i in range(count):
                save(f"{split}/{name}/{i:02}.jpg", photo(next(seeds)))
    return tmp_path


def found(root: Path, **options: object) -> list[tuple[str, list[str], str]]:
    """Kind, names below `root` and detail of each finding."""
    scanned = scan(read_all_splits(root))
    return [
        (
            one.kind,
            [str(scanned.entries[i])[len(str(root)) + 1 :] for i in one.images],
            one.detail,
        )
        for one in find(scanned, **options)  # type: ignore[arg-type]
    ]


def test_nothing_is_wrong(splits: Path) -> None:
    assert found(splits) == []


def test_copies(splits: Path, save: Save) -> None:
    (splits / "train/cat/copy.jpg").write_bytes((splits / "train/cat/03.jpg").read_bytes())
    with Image.open(splits / "train/dog/05.jpg") as image:
        save("train/dog/lossless.png", image)
    assert found(splits) == [
        ("duplicate", ["train/cat/03.jpg", "train/cat/copy.jpg"], "the same file"),
        ("duplicate", ["train/dog/05.jpg", "train/dog/lossless.png"], "the same pixels"),
    ]


def test_what_was_saved_anew(splits: Path, save: Save) -> None:
    with Image.open(splits / "train/cat/03.jpg") as image:
        save("train/cat/again.jpg", image, quality=50)
        save("train/cat/small.jpg", image.resize((48, 36)))
        save("train/cat/mirrored.jpg", image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        save("train/cat/turned.jpg", image.rotate(90, expand=True))
    names = ["train/cat/03.jpg", "train/cat/again.jpg", "train/cat/small.jpg"]
    assert [one for one in found(splits) if one[0] != "odd_size"] == [("near_duplicate", names, "")]


def test_leaks_and_labels(splits: Path, save: Save) -> None:
    copy = (splits / "train/cat/03.jpg").read_bytes()
    (splits / "val/cat/leak.jpg").write_bytes(copy)
    (splits / "train/dog/really_a_cat.jpg").write_bytes((splits / "train/cat/04.jpg").read_bytes())
    save("val/dog/leak.jpg", photo(15), quality=60)
    save("val/dog/both.jpg", photo(6), quality=60)
    assert found(splits) == [
        ("two_labels", ["train/cat/04.jpg", "train/dog/really_a_cat.jpg"], "the same file"),
        ("near_two_labels", ["train/cat/06.jpg", "val/dog/both.jpg"], ""),
        ("leak", ["train/cat/03.jpg", "val/cat/leak.jpg"], "the same file"),
        ("near_leak", ["train/cat/06.jpg", "val/dog/both.jpg"], ""),
        ("near_leak", ["train/dog/03.jpg", "val/dog/leak.jpg"], ""),
    ]
    assert all(KINDS[kind].harmful for kind, _, _ in found(splits))


def test_what_is_near_takes_its_copies_along(splits: Path, save: Save) -> None:
    (splits / "val/cat/leak.jpg").write_bytes((splits / "train/cat/03.jpg").read_bytes())
    save("train/cat/again.jpg", photo(3), quality=50)
    assert [one[:2] for one in found(splits)] == [
        ("leak", ["train/cat/03.jpg", "val/cat/leak.jpg"]),
        ("near_leak", ["train/cat/03.jpg", "train/cat/again.jpg", "val/cat/leak.jpg"]),
    ]


def test_how_near_is_chosen(splits: Path, save: Save) -> None:
    noise = np.random.default_rng(0).normal(0, 25, (72, 96, 3))
    noisy = np.clip(np.asarray(photo(3)) + noise, 0, 255).astype(np.uint8)
    path = save("train/cat/noisy.png", Image.fromarray(noisy))
    with Image.open(splits / "train/cat/03.jpg") as one, Image.open(path) as other:
        hashes = dhashes(np.stack([reduced(one), reduced(other)])).tolist()
    apart = (hashes[0] ^ hashes[1]).bit_count()
    assert 0 < apart < 12
    assert [one[0] for one in found(splits, near=apart)] == ["near_duplicate"]
    assert found(splits, near=apart - 1) == []


def test_files_that_cannot_be_read(splits: Path) -> None:
    (splits / "train/cat/00.jpg").write_bytes(b"")
    (splits / "train/cat/01.jpg").write_text("no image")
    whole = (splits / "val/dog/00.jpg").read_bytes()
    (splits / "val/dog/00.jpg").write_bytes(whole[: len(whole) // 2])
    some = found(splits)
    assert [(kind, names) for kind, names, _ in some] == [
        ("unreadable", ["train/cat/00.jpg"]),
        ("unreadable", ["train/cat/01.jpg"]),
        ("unreadable", ["val/dog/00.jpg"]),
    ]
    assert "empty" in some[0][2]
    assert "isn't an image in a supported format" in some[1][2]
    assert "truncated" in some[2][2]


def test_sizes(splits: Path, save: Save) -> None:
    save("train/cat/tiny.png", photo(500, (40, 31)))
    save("train/cat/narrow.png", photo(501, (96 * 4, 96)))
    save("train/cat/strip.png", photo(502, (97, 32)))
    assert [(kind, names, detail) for kind, names, detail in found(splits)] == [
        ("tiny", ["train/cat/tiny.png"], "40x31"),
        ("narrow", ["train/cat/narrow.png"], "384x96"),
        ("narrow", ["train/cat/strip.png"], "97x32"),
        ("odd_size", ["train/cat/narrow.png"], "384x96, not 96x72"),
        ("odd_size", ["train/cat/strip.png"], "97x32, not 96x72"),
        ("odd_size", ["train/cat/tiny.png"], "40x31, not 96x72"),
    ]
    assert sum(one[0] == "tiny" for one in found(splits, image_size=(73, 40))) == 32


@pytest.mark.filterwarnings("ignore:16-bit images")
def test_how_images_are_stored(save: Save, tmp_path: Path) -> None:
    modes = {
        "L.png": "grey",
        "1.png": "grey",
        "I;16.png": "grey",
        "LA.png": "alpha",
        "RGBA.png": "alpha",
        "CMYK.jpg": "CMYK",
        "RGB.jpg": "colour",
        "P.png": "colour",
    }
    for number, name in enumerate(modes):
        mode = name[: name.index(".")]
        image = photo(number)
        image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
        save(f"a/{name}", image)
    scanned = scan(read_all_splits(tmp_path))
    stored = {Path(str(scanned.entries[i])).name: seen.stored for i, seen in scanned.readable()}
    assert stored == modes


def test_flat_images_are_compared_by_their_pixels_alone(save: Save, tmp_path: Path) -> None:
    for number, colour in enumerate(["navy", "white", "white", "red"]):
        save(f"a/{number}.png", Image.new("RGB", (40, 40), colour))
    kinds = [(kind, names) for kind, names, _ in found(tmp_path)]
    assert ("one_class", []) in kinds
    assert ("duplicate", ["a/1.png", "a/2.png"]) in kinds
    assert not [kind for kind, _ in kinds if kind.startswith("near")]


def test_classes_of_splits_that_differ(splits: Path, save: Save) -> None:
    for i in range(12):
        save(f"train/fox/{i}.jpg", photo(300 + i))
    save("val/wolf/0.jpg", photo(400))
    assert found(splits) == [
        ("unknown_class", [], "val has wolf"),
        ("absent_class", [], "val lacks fox"),
    ]


def test_counts_of_classes() -> None:
    def kinds(**counts: int) -> dict[str, str]:
        return {one.kind: one.detail for one in class_findings(counts)}

    assert kinds(a=10, b=100) == {}
    assert kinds(a=10, b=101) == {"uneven": "b has 101 images, a has 10"}
    assert kinds(a=9, b=3, c=90) == {"few": "b (3), a (9)", "uneven": "c has 90 images, b has 3"}
    many = kinds(**dict.fromkeys("abcdefg", 2))
    assert many == {"few": "a (2), b (2), c (2), d (2), e (2) and 2 more"}


def test_images_in_an_archive(splits: Path, tmp_path: Path) -> None:
    (splits / "val/cat/leak.jpg").write_bytes((splits / "train/cat/03.jpg").read_bytes())
    (splits / "train/cat/00.jpg").write_text("no image")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted(splits.rglob("*.jpg")):
            archive.write(path, path.relative_to(splits))
    assert [one[:2] for one in found(tmp_path / "all.zip")] == [
        ("unreadable", ["train/cat/00.jpg"]),
        ("leak", ["train/cat/03.jpg", "val/cat/leak.jpg"]),
    ]


def test_a_sheet_shows_what_was_found(splits: Path, save: Save) -> None:
    assert draw_findings(Scan({}), []) is None
    red = Image.new("RGB", (40, 40), "#ff0000")
    for name in ("0.png", "1.png"):
        save(f"train/cat/{name}", red)
    (splits / "val/dog/00.jpg").write_text("no image")
    scanned = scan(read_all_splits(splits))
    page = draw_findings(scanned, find(scanned))
    assert page is not None
    pixels = np.asarray(page)
    assert (pixels == [255, 0, 0]).all(axis=-1).sum() >= 2 * 160 * 160
