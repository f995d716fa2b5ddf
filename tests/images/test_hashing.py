"""Hashes against the published definition, written anew, and against ImageHash's."""

import io

import growth
import numpy as np
import pytest
from PIL import Image

from mixer_mlx.images import hashing
from mixer_mlx.images.hashing import ALIKE, NEAR, dhashes, groups_alike, pixel_digest, reduced


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Soft blobs of colour, as photographs have them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def krawetz(image: Image.Image) -> int:
    """hackerfactor.com, 2013: "P[x] < P[x+1]" sets a bit, row by row, in 9 x 8 grey pixels."""
    small = image.convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    value = 0
    for y in range(8):
        for x in range(8):
            value = 2 * value + int(small.getpixel((x, y)) < small.getpixel((x + 1, y)))  # type: ignore[operator]
    return value


def dhash(image: Image.Image) -> int:
    return int(dhashes(reduced(image)[None])[0])


def distance(one: Image.Image, other: Image.Image) -> int:
    return (dhash(one) ^ dhash(other)).bit_count()


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize("seed", range(20))
def test_dhash_by_its_definition(seed: int) -> None:
    image = photo(seed, (150 + seed, 90))
    assert dhash(image) == krawetz(image)


def test_dhash_is_imagehashs(cat) -> None:  # type: ignore[no-untyped-def]
    """`str(imagehash.dhash(Image.open(cat)))`, ImageHash 4.3.2 with Pillow 13.0."""
    with Image.open(cat) as image:
        assert f"{dhash(image.convert('RGB')):016x}" == GOLDEN


GOLDEN = "5414589aab6fa785"


@pytest.mark.parametrize("seed", range(10))
def test_what_looks_alike_and_what_does_not(seed: int) -> None:
    image = photo(seed)
    for same in (
        jpeg(image, 40),
        image.resize((80, 60), Image.Resampling.BICUBIC),
        image.resize((333, 250), Image.Resampling.BICUBIC),
        image.point(lambda value: value * 0.8),
    ):
        assert distance(image, same) <= NEAR
    for other in (
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        image.transpose(Image.Transpose.ROTATE_180),
        photo(seed + 100),
    ):
        assert distance(image, other) > 2 * NEAR


def test_pixel_digests() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    image = Image.fromarray(pixels)
    assert pixel_digest(image) == pixel_digest(Image.fromarray(pixels.copy()))
    other = pixels.copy()
    other[29, 39, 2] ^= 1
    assert pixel_digest(image) != pixel_digest(Image.fromarray(other))
    assert pixel_digest(image) != pixel_digest(Image.fromarray(pixels.reshape(40, 30, 3)))
    tall = Image.fromarray(np.tile(pixels, (1400, 1, 1)))  # in two bands
    changed = tall.copy()
    changed.putpixel((0, tall.height - 1), (1, 2, 3))
    assert pixel_digest(tall) == pixel_digest(tall.copy())
    assert pixel_digest(tall) != pixel_digest(changed)


@pytest.mark.parametrize("limit", [0, 2, 5, 20])
def test_groups_against_all_pairs(limit: int) -> None:
    rng = np.random.default_rng(limit)
    base = rng.integers(0, 200, (30, 1, 8, 9)) + rng.integers(-9, 10, (30, 5, 8, 9))
    greys = rng.permutation(np.clip(base.reshape(-1, 8, 9), 0, 255).astype(np.uint8))
    greys[40:60, :, ::2] //= 8  # the same bits may be left of it, but not the same image
    count = len(greys)
    hashes = [dhash_of(grey) for grey in greys]
    correlation = np.corrcoef(greys.reshape(count, 72))
    near = np.array([[(a ^ b).bit_count() <= limit for b in hashes] for a in hashes])
    linked = near & (correlation >= ALIKE)
    ends = np.arange(count)
    for _ in range(count):  # the lowest index that can be reached
        ends = np.array([ends[row].min() for row in linked])
    expected = [np.flatnonzero(ends == end).tolist() for end in np.unique(ends)]
    expected = [group for group in expected if len(group) > 1]
    assert groups_alike(greys, limit) == expected
    assert 0 < len(expected) < count / 2


def dhash_of(grey: np.ndarray) -> int:
    return int("".join(str(int(b > a)) for row in grey for a, b in zip(row, row[1:])), 2)  # noqa: B905, RUF007


def test_the_same_bits_by_chance_are_not_the_same_image() -> None:
    early = np.tile(np.array([0, 240, 241, 242, 243, 244, 245, 246, 247], np.uint8), (8, 1))
    late = np.tile(np.array([0, 1, 2, 3, 4, 5, 6, 7, 255], np.uint8), (8, 1))
    dark = (early // 3 + np.arange(9, dtype=np.uint8)).astype(np.uint8)
    greys = np.stack([early, late, dark])
    assert len(set(dhashes(greys).tolist())) == 1
    assert groups_alike(greys, 4) == [[0, 2]]


def test_nothing_to_compare() -> None:
    assert groups_alike(np.zeros((0, 8, 9), np.uint8), 4) == []


def test_the_work_does_not_grow_with_the_square_of_the_images() -> None:
    """Images of nothing in common, and images that all look alike, of which each is joined once."""
    for count in (1000, 2000, 4000):
        assert growth.pairs_compared(growth.greys(count, alike=False)) < count * count / 2 / 200
        assert growth.pairs_compared(growth.greys(count, alike=True)) < 10 * count


def test_joined_sets() -> None:
    rng = np.random.default_rng(0)
    groups = hashing._Groups(60)
    ends = list(range(60))
    for one, other in rng.integers(0, 60, (45, 2)).tolist():
        groups.join(one, other)
        ends = [ends[one] if end == ends[other] else end for end in ends]
    assert hashing.members(groups.of.tolist()) == hashing.members(ends)
