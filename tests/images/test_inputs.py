"""Images as users have them: every form gives the pixels of the same image as a plain array."""

import io
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from mixer_mlx import Classifier, ImageError, load
from mixer_mlx.images.decode import decode
from mixer_mlx.images.inputs import one_image
from mixer_mlx.images.preprocess import Preprocess

STRAIGHT = Preprocess((32, 32), "squash", 1.0)


@pytest.fixture(scope="module")
def pixels(cat: Path) -> np.ndarray:
    """Of the model's size, so that nothing is resized."""
    return Preprocess((32, 32), "squash", 1.0)(cat)


@pytest.fixture(scope="module")
def small(pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load("cifar10", dtype="float32")


class Tensor:
    """Like a torch tensor: not a NumPy array, but readable as one."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self.pixels


class Answer(io.RawIOBase):
    """Like the answer of a web server: it can be read once, and not rewound."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        return self.file.readinto(buffer)

    def readable(self) -> bool:
        return True


FORMS: dict[str, Callable[[Path, np.ndarray], object]] = {
    "path": lambda cat, pixels: cat,
    "str": lambda cat, pixels: str(cat),
    "bytes": lambda cat, pixels: cat.read_bytes(),
    "bytearray": lambda cat, pixels: bytearray(cat.read_bytes()),
    "memoryview": lambda cat, pixels: memoryview(cat.read_bytes()),
    "file": lambda cat, pixels: io.BytesIO(cat.read_bytes()),
    "answer": lambda cat, pixels: Answer(cat.read_bytes()),
    "PIL": lambda cat, pixels: Image.fromarray(pixels),
    "uint8": lambda cat, pixels: pixels,
    "uint16": lambda cat, pixels: pixels.astype(np.uint16) * 257,
    "big-endian": lambda cat, pixels: (pixels.astype(np.uint16) * 257).astype(">u2"),
    "RGBA": lambda cat, pixels: np.dstack([pixels, np.full((32, 32), 255, np.uint8)]),
    "mx.array": lambda cat, pixels: mx.array(pixels),
    "lazy mx.array": lambda cat, pixels: mx.array(pixels) + mx.zeros((32, 32, 3), mx.uint8),
    "mx.uint16": lambda cat, pixels: mx.array(pixels.astype(np.uint16) * 257),
    "__array__": lambda cat, pixels: Tensor(pixels),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_image(
    form: str, small: Path, pixels: np.ndarray, classifier: Classifier
) -> None:
    make = FORMS[form]
    assert one_image(make(small, pixels))  # type: ignore[arg-type]
    np.testing.assert_array_equal(STRAIGHT(make(small, pixels)), pixels)  # type: ignore[arg-type]
    expected = classifier(pixels)
    assert classifier(make(small, pixels)) == expected  # type: ignore[call-overload]
    image = make(small, pixels)
    (result,) = classifier.predict([image])  # type: ignore[list-item]
    assert result.image is image
    assert list(result.predictions) == expected


def test_several_in_every_form(cat: Path, pixels: np.ndarray, classifier: Classifier) -> None:
    dark = pixels // 2
    expected = classifier([pixels, dark])
    stack = np.stack([pixels, dark])
    several: list[object] = [
        (pixels, dark), iter([pixels, dark]), (image for image in stack), stack,
        stack.astype(np.uint16) * 257, mx.array(stack), Tensor(stack), {0: pixels, 1: dark}.values()
    ]  # fmt: skip
    for images in several:
        assert not one_image(images)  # type: ignore[arg-type]
        found = classifier(images)  # type: ignore[call-overload]
        for one, other in zip(found, expected, strict=True):
            assert [p.index for p in one] == [p.index for p in other]
    assert classifier(np.array([str(cat), str(cat)])) == [classifier(cat)] * 2
    assert classifier(np.array([cat, cat], object)) == [classifier(cat)] * 2
    assert classifier(stack[:0]) == classifier([]) == []
    grey = np.stack([pixels[..., :1]] * 3)
    assert len(classifier(grey)) == 3


def test_one_image_is_one_result(cat: Path, pixels: np.ndarray, classifier: Classifier) -> None:
    for image in (cat, str(cat), cat.read_bytes(), pixels):
        (result,) = classifier.predict(image)
        assert list(result.predictions) == classifier(image)
    (result,) = classifier.predict("ab.png")
    assert "no such file" in str(result.error)
    (vector,) = classifier.embed([cat])
    np.testing.assert_array_equal(classifier.embed(cat), vector)
    np.testing.assert_array_equal(classifier.embed((cat,)), vector[None])


def test_embeddings_of_a_batch(pixels: np.ndarray, classifier: Classifier) -> None:
    stack = np.stack([pixels, pixels // 2])
    expected = classifier.embed(list(stack))
    assert expected.shape == (2, 128)
    np.testing.assert_array_equal(classifier.embed(stack), expected)
    np.testing.assert_array_equal(classifier.embed(mx.array(stack)), expected)


REFUSED: dict[str, tuple[object, str]] = {
    "floats": (np.zeros((4, 4, 3), np.float32), r"\(image \* 255\).round\(\).astype\('uint8'\)"),
    "mx floats": (mx.zeros((4, 4, 3)), r"\(image \* 255\).round\(\)"),
    "ints": (np.zeros((4, 4, 3), np.int64), r"image.astype\('uint8'\)"),
    "uint32": (np.zeros((4, 4, 3), np.uint32), r"image.astype\('uint8'\)"),
    "bools": (np.zeros((4, 4), bool), r"image.astype\('uint8'\)"),
    "channels first": (np.zeros((3, 5, 5), np.uint8), r"transpose\(1, 2, 0\)"),
    "grey batch": (np.zeros((9, 5, 5), np.uint8), r"\(N, H, W, 1\)"),
    "bfloat16": (mx.zeros((4, 4, 3), mx.bfloat16), "uint8"),
    "one axis": (np.zeros(4, np.uint8), r"\(H, W, 3\)"),
    "no pixels": (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
    "text file": (io.StringIO("text"), "binary mode"),
    "a number": (3, "not int"),
    "nothing": (None, "not NoneType"),
    "no image": (b"text", "isn't an image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_names_the_fix(name: str, classifier: Classifier) -> None:
    image, message = REFUSED[name]
    with pytest.raises(ImageError, match=message):
        STRAIGHT(image)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=message):
        classifier(image)  # type: ignore[call-overload]
    (result,) = classifier.predict([image])  # type: ignore[list-item]
    assert result.image is image
    assert result.error is not None


def test_a_batch_inside_a_list_is_refused(classifier: Classifier) -> None:
    with pytest.raises(ImageError, match="by themselves, not in a list"):
        classifier([np.zeros((2, 4, 4, 3), np.uint8)])


def test_a_tensor_that_can_not_be_read(classifier: Classifier) -> None:
    class OnGpu:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    with pytest.raises(ImageError, match=r"OnGpu can't be read as a NumPy array .*CPU's memory"):
        classifier(OnGpu())


@pytest.mark.parametrize("name", ["narrow", "wide"])
def test_deep_grey_arrays_are_as_their_files(name: str) -> None:
    values = np.array([[0, 300, 4095 if name == "narrow" else 65_535]], np.uint16)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    preprocess = Preprocess((1, 3), "squash", 1.0)
    with pytest.warns(UserWarning, match="16-bit") if name == "narrow" else nullcontext():
        expected = np.array(decode(file))
    with pytest.warns(UserWarning, match="16-bit") if name == "narrow" else nullcontext():
        np.testing.assert_array_equal(preprocess(values), expected)


def test_deep_colours_use_their_range() -> None:
    """12 bits: v * 255 / 4095, rounded; opaque alpha of 16 bits changes nothing."""
    values = np.array([[[0, 1200, 4095], [4095, 0, 300]]], np.uint16)
    opaque = np.dstack([values, np.full((1, 2), 65_535, np.uint16)])
    expected = [[[0, 75, 255], [255, 0, 19]]]
    for array in (values, opaque):
        with pytest.warns(UserWarning, match="0 to 4095"):
            assert Preprocess((1, 2), "squash", 1.0)(array).tolist() == expected
