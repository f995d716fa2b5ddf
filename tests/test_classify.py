import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from mixer_mlx import CheckpointError, Classifier, ImageError, MlpMixer, ModelInfo, Preprocess, load
from mixer_mlx.images.decode import LazyImage
from mixer_mlx.runtime.threads import workers


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load("cifar10", dtype="float32")


@pytest.fixture(scope="module")
def expected(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "timm_cifar10" / "expected.npz") as arrays:
        return dict(arrays)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_the_built_in_model_gives_timms_logits(
    classifier: Classifier, golden: Path, expected: dict[str, np.ndarray]
) -> None:
    """See tests/reference/make_built_in.py."""
    with np.load(golden / "built_in.npz") as arrays:
        theirs = arrays["logits"]
    assert theirs.shape == (16, 10)
    assert abs(np.array(classifier.forward(expected["pictures"])) - theirs).max() < 1e-4
    names = [classifier.labels[i] for i in theirs.argmax(1)]
    right = [path.startswith(name) for name, path in zip(names, expected["paths"], strict=True)]
    assert sum(right) >= 12


def test_a_converted_model_gives_timms_logits(
    golden: Path, expected: dict[str, np.ndarray]
) -> None:
    full = load(golden / "timm_cifar10", dtype="float32")
    assert abs(np.array(full.forward(expected["pictures"])) - expected["logits"]).max() < 1e-4


def test_predictions_are_the_softmax_ranked(golden: Path, expected: dict[str, np.ndarray]) -> None:
    full = load(golden / "timm_cifar10", dtype="float32")
    probabilities = softmax(expected["logits"])
    order = np.argsort(-probabilities, axis=1)
    for i, found in enumerate(full(list(expected["pictures"]), k=3)):
        assert [p.index for p in found] == order[i, :3].tolist()
        assert [p.label for p in found] == [full.labels[j] for j in order[i, :3]]
        theirs = probabilities[i, order[i, :3]]
        assert [p.probability for p in found] == pytest.approx(theirs.tolist(), abs=1e-5)


def test_more_classes_than_there_are(classifier: Classifier, cat: Path) -> None:
    found = classifier(cat, k=1000)
    assert len(found) == 10
    assert sum(p.probability for p in found) == pytest.approx(1, abs=1e-5)


def test_path_image_and_array_are_the_same(classifier: Classifier, cat: Path) -> None:
    with Image.open(cat) as image:
        converted = image.convert("RGB")
    for other in (str(cat), converted, np.array(converted)):
        assert classifier(other) == classifier(cat)


def test_batches_order_and_errors(classifier: Classifier, cat: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("text")
    images = [cat, bad, cat, cat, bad]
    alone = classifier(cat)
    for batch_size in (1, 2, 3, 64):
        results = list(classifier.predict(iter(images), batch_size=batch_size))
        assert [result.image for result in results] == images
        assert [result.error is None for result in results] == [True, False, True, True, False]
        for result in results[::2][:2]:
            assert [p.index for p in result.predictions] == [p.index for p in alone]
            theirs = [p.probability for p in alone]
            assert [p.probability for p in result.predictions] == pytest.approx(theirs, abs=1e-5)
    with pytest.raises(ImageError):
        classifier(images)
    assert list(classifier.predict([])) == []


def test_a_consumer_that_stops_early_stops_the_decoding(classifier: Classifier, cat: Path) -> None:
    asked = 0

    def endless():  # type: ignore[no-untyped-def]
        nonlocal asked
        while True:
            asked += 1
            yield cat

    results = classifier.predict(endless(), batch_size=2)
    next(results)
    results.close()
    assert asked < 20


def test_from_other_threads(classifier: Classifier, cat: Path) -> None:
    found: list[object] = []

    def work() -> None:
        try:
            found.append(classifier(cat))
        except BaseException as error:
            found.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [classifier(cat)] * 4


def overflowing(factor: float, dtype: mx.Dtype) -> Classifier:
    """The built-in model, its head scaled so that float16 logits overflow."""
    info = load("cifar10").info
    model = load("cifar10", dtype="float32").model
    model.head.weight = model.head.weight * factor
    model.set_dtype(dtype)
    return Classifier(model, info)


def test_logits_beyond_float16_are_computed_again(cat: Path) -> None:
    half = overflowing(30_000, mx.float16)
    with pytest.warns(RuntimeWarning, match="float16 were not finite"):
        found = half(cat)
    single = overflowing(30_000, mx.float32)
    assert found[0].index == single(cat)[0].index
    pixels = half.preprocess(cat)[None]
    with pytest.warns(RuntimeWarning, match="float16 were not finite"):
        again = half.forward(pixels)
    assert again.dtype == mx.float32
    expected = np.array(single.forward(pixels))
    np.testing.assert_allclose(np.array(again), expected, atol=0.02 * np.abs(expected).max())


def test_broken_weights_are_an_error_not_nan(cat: Path) -> None:
    broken = overflowing(float("nan"), mx.float32)
    with pytest.raises(CheckpointError, match="not finite"):
        broken(cat)
    with pytest.raises(CheckpointError, match="not finite"):
        broken.forward(broken.preprocess(cat)[None])


def test_a_model_without_a_head_can_not_classify() -> None:
    info = load("cifar10").info
    config = info.config.replace(num_classes=0)
    with pytest.raises(CheckpointError, match="no head"):
        Classifier(MlpMixer(config), ModelInfo(config, Preprocess((32, 32))))


def test_classes_without_names(golden: Path, cat: Path) -> None:
    found = load(golden / "jax_square.npz")(cat, k=1)
    assert found[0].label == f"class {found[0].index}"


def test_nothing_warns(classifier: Classifier, cat: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier([cat, cat])


def test_images_are_asked_for_as_they_are_needed(classifier: Classifier, cat: Path) -> None:
    asked = []

    def counted() -> Iterator[Path]:
        for i in range(1000):
            asked.append(i)
            yield cat

    results = classifier.predict(counted(), batch_size=4)
    for done in range(1, 100):
        next(results)
        assert len(asked) < done + 3 * 4 + 2 * workers()
    results.close()


def test_what_has_been_read_is_not_kept(classifier: Classifier, cat: Path) -> None:
    """Images out of archives hold their files: none may stay behind."""

    class Held(LazyImage):
        pass

    alive: weakref.WeakSet[LazyImage] = weakref.WeakSet()

    def held() -> Iterator[LazyImage]:
        for i in range(200):
            image = Held(str(i), cat.read_bytes)
            alive.add(image)
            yield image

    most = 0
    for i, result in enumerate(classifier.predict(held(), batch_size=4)):
        assert str(result.image) == str(i)
        most = max(most, len(alive))
    assert most < 4 * 4 + 3 * workers() + 4


def test_a_failing_list_of_images_fails_at_once(classifier: Classifier, cat: Path) -> None:
    def failing() -> Iterator[Path]:
        yield cat
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(classifier.predict(failing()))


def test_all_of_a_batch_may_be_bad(classifier: Classifier, cat: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    images = [bad, bad, cat, bad, bad]
    results = list(classifier.predict(images, batch_size=2))
    assert [result.error is None for result in results] == [image is cat for image in images]


def test_exact_is_handed_on(classifier: Classifier, cat: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(cat) as image:
        image.save(tmp_path / "turned.png", exif=exif)
        upright = classifier(image.transpose(Image.Transpose.ROTATE_180).convert("RGB"))
    assert classifier(tmp_path / "turned.png") == upright
    assert classifier(tmp_path / "turned.png", exact=True) == classifier(cat) != upright
    (result,) = classifier.predict([tmp_path / "turned.png"], exact=True)
    assert list(result.predictions) == classifier(cat)


def test_a_result_may_be_asked_for_in_another_thread(classifier: Classifier, cat: Path) -> None:
    results = classifier.predict([cat] * 3, batch_size=1)
    found = [next(results)]
    thread = threading.Thread(target=lambda: found.extend(results))
    thread.start()
    thread.join(timeout=60)
    assert [result.predictions for result in found] == [tuple(classifier(cat))] * 3


def test_small_batches_are_compiled_when_they_have_come_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Never for one image: g++ takes as long as hundreds of them."""
    classifier = load("cifar10", dtype="float32", device="cpu")
    network, seen = classifier._network, []
    monkeypatch.setattr("mixer_mlx.runtime.backend.gpu_is_default", lambda: False)
    whole = network._whole_of
    monkeypatch.setattr(network, "_whole_of", lambda finish: seen.append(1) or whole(finish))
    monkeypatch.setattr("mixer_mlx.forward.COMPILE_FORWARD_AFTER", 3 * 64 * 128)
    for size in (1, 1, 1, 1, 1):
        classifier.forward(np.zeros((size, 32, 32, 3), np.uint8))
    assert seen == [1, 1]
