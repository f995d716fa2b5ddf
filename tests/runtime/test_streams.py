"""A batch in parts on several streams gives what the whole batch gives."""

import ctypes
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest

from mixer_mlx import Classifier, MixerConfig, MlpMixer, Preprocess
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.runtime import openblas, worker
from mixer_mlx.runtime.streams import one_core_each, rounds, streams
from mixer_mlx.runtime.tuning import MAX_PART
from mixer_mlx.training.network import weights_of
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.step import Step, first_arrays, make_step

CONFIG = MixerConfig(
    image_size=(32, 32),
    patch_size=4,
    num_blocks=3,
    hidden_dim=32,
    tokens_mlp_dim=16,
    channels_mlp_dim=128,
    num_classes=10,
)
WIDEST = 64 * 128  # numbers, in the channel-mixing MLP

on_linux_cpu = pytest.mark.skipif(
    sys.platform != "linux" or mx.default_device().type == mx.DeviceType.gpu,
    reason="NOT RUN: needs Linux, and MLX without a GPU",
)


def pixels(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, 32, 32, 3), np.uint8)


@pytest.fixture
def processors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", str(request.param))
    return int(request.param)


@on_linux_cpu
@pytest.mark.parametrize("processors", [1, 2, 3, 64], indirect=True)
@pytest.mark.parametrize("size", [1, 2, 5, 64, 1000])
def test_rounds_take_every_example_once(processors: int, size: int) -> None:
    # On 64 cores two products with 64 cores are faster than two streams.
    at_once = {(3, 2): 1, (64, 2): 1, (64, 64): 16, (64, 1000): 16}
    found = rounds(CONFIG, size)
    parts = [part for turn in found for part in turn]
    assert [i for start, end in parts for i in range(start, end)] == list(range(size))
    assert len(found[0]) == at_once.get((processors, size), min(processors, size))
    assert max(end - start for start, end in parts) * WIDEST <= MAX_PART
    lengths = [end - start for start, end in parts]
    assert set(lengths[:-1]) <= {lengths[0]}, "MLX compiles for each length"


@on_linux_cpu
@pytest.mark.parametrize("processors", [2], indirect=True)
def test_a_image_too_large_for_a_part_is_one(processors: int) -> None:
    large = CONFIG.replace(image_size=(4096, 4096))
    assert rounds(large, 3) == [[(0, 1), (1, 2)], [(2, 3)]]


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_gpu_and_other_systems_compute_the_whole(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    if platform == "linux":
        monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    assert rounds(CONFIG, 10_000) == [[(0, 10_000)]]


@on_linux_cpu
@pytest.mark.parametrize("processors", [2, 3, 16], indirect=True)
@pytest.mark.parametrize("size", [2, 7, 300])
def test_logits(processors: int, size: int) -> None:
    mx.random.seed(0)
    model = MlpMixer(CONFIG)
    model.head.weight = mx.random.normal(model.head.weight.shape)
    preprocess = Preprocess((32, 32), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    classifier = Classifier(model, ModelInfo(CONFIG, preprocess))
    images = (pixels(size) / 255 - np.array(preprocess.mean)) / np.array(preprocess.std)
    expected = np.array(model(mx.array(images.astype(np.float32))))
    for _ in range(3):  # from the second on it is compiled
        found = np.array(classifier.forward(pixels(size)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


RECIPES = {
    "plain": Recipe(steps=1, optimizer="sgd", lr=0.5),
    "noisy": Recipe(steps=1, optimizer="sgd", lr=0.5, drop_path=0.5, dropout=0.5, ema_decay=0.9),
    "parts": Recipe(steps=1, optimizer="sgd", lr=0.5, accumulation=3),
    "recomputed": Recipe(
        steps=1, optimizer="sgd", lr=0.5, gradient_checkpointing=True, clip_norm=None
    ),
}


@on_linux_cpu
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_training_step(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    mx.random.seed(0)
    weights = weights_of(MlpMixer(CONFIG))
    labels = np.arange(300, dtype=np.int32) % 10
    step: Step = make_step(CONFIG, recipe, Preprocess((32, 32)))
    found = {}
    for processors in ("1", "2", "3", "16"):
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", processors)
        arrays, report = step(first_arrays(weights, recipe), {}, pixels(300), labels, 0, recipe.lr)
        found[processors] = {**arrays["weights"], **arrays.get("ema", {}), "report": report}
    for processors in ("2", "3", "16"):
        for name, value in found["1"].items():
            np.testing.assert_allclose(
                np.array(found[processors][name]), np.array(value), rtol=1e-4, atol=2e-6
            )


@on_linux_cpu
@pytest.mark.parametrize("processors", [2], indirect=True)
def test_the_same_numbers_every_time(processors: int) -> None:
    recipe = Recipe(steps=1)
    weights = weights_of(MlpMixer(CONFIG))
    step = make_step(CONFIG, recipe, Preprocess((32, 32)))
    labels = np.arange(64, dtype=np.int32) % 10
    arrays, _ = step(first_arrays(weights, recipe), {}, pixels(64), labels, 0, 1e-3)
    for _ in range(20):
        again, _ = step(first_arrays(weights, recipe), {}, pixels(64), labels, 0, 1e-3)
        for name, value in arrays["weights"].items():
            assert mx.array_equal(again["weights"][name], value), name


@on_linux_cpu
@pytest.mark.skipif(openblas.prepare().threads is None, reason="NOT RUN: needs OpenBLAS")
def test_one_core_for_each_product_of_several() -> None:
    count_threads = ctypes.CDLL(openblas.prepare().openblas).scipy_openblas_get_num_threads
    before = count_threads()
    for count in (2, 1, 3, 4, 1):
        assert len(set(map(str, streams(count)))) == count
        with one_core_each(count):
            assert count_threads() == (before if count == 1 else 1)
            with one_core_each(2):
                assert count_threads() == 1
            assert count_threads() == (before if count == 1 else 1)
        assert count_threads() == before


@on_linux_cpu
@pytest.mark.skipif(openblas.prepare().threads is None, reason="NOT RUN: needs OpenBLAS")
@pytest.mark.parametrize("processors", [2], indirect=True)
def test_all_cores_are_given_back(processors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    count_threads = ctypes.CDLL(openblas.prepare().openblas).scipy_openblas_get_num_threads
    before = count_threads()
    mx.random.seed(0)
    classifier = Classifier(MlpMixer(CONFIG), ModelInfo(CONFIG, Preprocess((32, 32))))
    images = list(pixels(5))
    seen = []
    compute = MlpMixer.__call__
    monkeypatch.setattr(
        MlpMixer, "__call__", lambda *a: seen.append(count_threads()) or compute(*a)
    )
    # Two batches of two on a core each; the last, of one, on all cores.
    assert len(list(classifier.predict(images, batch_size=2))) == 5
    assert sorted(seen) == [1, 1, 1, 1, before]
    assert count_threads() == before
    unfinished = classifier.predict(images, batch_size=2)
    next(unfinished)
    worker.run(int)  # the batch that had begun is done
    assert count_threads() == before
    classifier.forward(pixels(5))
    classifier.predictions(pixels(5))
    assert count_threads() == before
    step = make_step(CONFIG, Recipe(steps=1), Preprocess((32, 32)))
    arrays = first_arrays(weights_of(classifier.model), Recipe(steps=1))
    step(arrays, {}, pixels(5), np.zeros(5, np.int32), 0, 1e-3)
    assert count_threads() == before


@on_linux_cpu
def test_threads_of_python_have_streams_of_their_own() -> None:
    code = """
import threading, mixer_mlx, numpy as np
model = mixer_mlx.load("cifar10", device="cpu")
pixels = np.zeros((8, 32, 32, 3), np.uint8)
found = [np.array(model.forward(pixels))]
def work():
    found.append(np.array(mixer_mlx.load("cifar10", device="cpu").forward(pixels)))
thread = threading.Thread(target=work)
thread.start()
thread.join()
np.testing.assert_allclose(found[1], found[0], atol=1e-5)
print("done", flush=True)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.stdout == "done\n", run.stderr
