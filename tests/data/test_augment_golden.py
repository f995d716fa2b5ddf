"""Operations and mixtures against timm's; see tests/reference/make_augment.py."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixer_mlx.data.augment import RandomErasing, generator
from mixer_mlx.data.mixing import blend, cut_box, paste
from mixer_mlx.data.randaugment import OPERATIONS, RandAugment

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def theirs(golden: Path) -> Arrays:
    with np.load(golden / "augment.npz") as file:
        return dict(file)


@pytest.mark.parametrize("magnitude", [7, 15])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "cutout"])
def test_operations(theirs: Arrays, name: str, magnitude: int) -> None:
    """Those that go both ways go both, by chance."""
    image = Image.fromarray(theirs["picture"])
    expected = {v.tobytes() for k, v in theirs.items() if k.startswith(f"{name}/{magnitude}/")}
    found = [OPERATIONS[name](image, magnitude / 10, generator(0, 0, i)) for i in range(12)]
    assert {np.array(result).tobytes() for result in found} == expected
    unchanged = expected == {theirs["picture"].tobytes()}
    assert unchanged == ((name, magnitude) == ("solarize", 15))  # the threshold is 384


@pytest.mark.parametrize("magnitude", [7, 15])
def test_cutout(magnitude: int) -> None:
    """Half the box is int(magnitude / 10 * 40) at 224 pixels; its centre is any pixel."""
    half = {7: 28, 15: 60}[magnitude] // 8
    image = Image.new("RGB", (28, 28))
    y, x = np.mgrid[:28, :28]
    possible = set()
    for cy in range(28):
        for cx in range(28):
            inside = (y >= cy - half) & (y < cy + half) & (x >= cx - half) & (x < cx + half)
            possible.add(np.where(inside, 128, 0).astype(np.uint8).tobytes())
    found = set()
    for i in range(200):
        cut = np.array(OPERATIONS["cutout"](image, magnitude / 10, generator(0, 0, i)))
        assert (cut == cut[..., :1]).all()
        found.add(cut[..., 0].tobytes())
    assert found <= possible
    assert len(found) > 100


def test_no_cutout_of_less_than_a_pixel() -> None:
    """5 pixels: int(5 * 40 / 224) is 0, in both directions or in one."""
    for size in ((5, 5), (5, 28), (28, 5)):
        image = Image.new("RGB", size, "red")
        for i in range(20):
            assert OPERATIONS["cutout"](image, 1.0, generator(0, 0, i)) == image


def test_each_layer_is_any_operation(theirs: Arrays) -> None:
    """Two operations in a row, all sixteen of them first and last, as often as each other."""
    pixels = theirs["picture"]
    image = Image.fromarray(pixels)
    one = [RandAugment(1, 7)(pixels, generator(0, 0, i)).tobytes() for i in range(600)]
    rng = generator(0, 0, 0)
    for name in set(OPERATIONS) - {"cutout"}:
        results = {np.array(OPERATIONS[name](image, 0.7, rng)).tobytes() for _ in range(12)}
        assert 15 < sum(seen in results for seen in one) < 65, name  # 37.5 are expected
    two = {RandAugment(2, 7)(pixels, generator(0, 0, i)).tobytes() for i in range(300)}
    assert len(two) > 150 > len(set(one) & two)


def test_grey_images_and_zero() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 1), np.uint8)
    for i in range(60):
        assert RandAugment(2, 15)(pixels, generator(0, 0, i)).shape == (9, 12, 1)
        assert RandAugment(2, 0)(pixels, generator(0, 0, i)).dtype == np.uint8


def test_mixup(theirs: Arrays) -> None:
    """timm mixes the first with the last; of two images, that is the one before."""
    for share, expected in zip(theirs["mixup/share"], theirs["mixup/pixels"], strict=True):
        assert abs(blend(theirs["pair"], share) - expected).max() <= 0.5001
        # The same mixtures, in the other order, for the other share: so max(a, 1 - a) is as good.
        assert abs(blend(theirs["pair"], 1 - share)[::-1] - expected).max() <= 0.5001


def test_cutmix(theirs: Arrays) -> None:
    kept = []
    for n, share in enumerate(theirs["cutmix/share"]):
        y, x = theirs["cutmix/centre"][n].tolist()
        box, found = cut_box((9, 7), float(share), (y, x))
        assert np.array_equal(paste(theirs["pair"], box), theirs["cutmix/pixels"][n])
        target = theirs["cutmix/target"][n]
        assert found == pytest.approx(target[0, theirs["pair_labels"][0]])
        kept.append(found)
    assert len(set(kept)) > 3


def test_erased_boxes_are_distributed_as_timms(theirs: Arrays) -> None:
    erasing = RandomErasing(1.0)
    boxes = [erasing._box(40, 60, generator(0, 0, i)) for i in range(2500)]
    deciles = np.quantile(np.array(boxes), np.arange(1, 10) / 10, axis=0)
    # One pixel, or a twelfth where deciles lie far apart.
    assert (abs(deciles - theirs["erasing"]) <= np.maximum(1, theirs["erasing"] / 12)).all()


def test_erasing(theirs: Arrays) -> None:
    pixels = np.full((40, 60, 3), 99, np.uint8)
    found = [RandomErasing(0.3)(pixels, generator(0, 0, i)) for i in range(1000)]
    erased = [image for image in found if image is not pixels]
    assert abs(len(erased) / 1000 - theirs["erased"] / 4000) < 0.05
    assert (pixels == 99).all()
    values = np.concatenate([image[image != 99] for image in erased])
    assert np.bincount(values, minlength=256)[np.arange(256) != 99].min() > 0.9 * len(values) / 255
    for image in erased[:50]:
        y, x = np.nonzero((image != 99).any(axis=-1))
        assert (image[y.min() : y.max() + 1, x.min() : x.max() + 1] != 99).mean() > 0.97
