"""What users may write: mypy --strict and pyright --strict accept every line of it."""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import assert_type

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import mixer_mlx
from mixer_mlx import (
    CATALOG,
    RECIPES,
    VARIANTS,
    Classifier,
    Done,
    EpochDone,
    LazyImage,
    Metrics,
    MixerConfig,
    MixerError,
    MlpMixer,
    ModelInfo,
    Prediction,
    Preprocess,
    Recipe,
    Result,
    Saved,
    State,
    StepDone,
    evaluate,
    find_images,
    fit,
)
from mixer_mlx.choices import DType, Optimizer
from mixer_mlx.features.embed import Embedding
from mixer_mlx.labels import read_file


def classify(classifier: Classifier, pixels: NDArray[np.uint8]) -> None:
    assert_type(classifier("cat.png"), list[Prediction])
    assert_type(classifier(Path("cat.png"), k=3, exact=True), list[Prediction])
    assert_type(classifier(Image.new("RGB", (8, 8))), list[Prediction])
    assert_type(classifier(pixels), list[Prediction])
    assert_type(classifier(io.BytesIO(b"")), list[Prediction])
    names: list[str] = ["a.png", "b.png"]
    paths: tuple[Path, ...] = (Path("a.png"),)
    photos: list[Image.Image] = []
    mixed: Sequence[str | Path | Image.Image] = []
    assert_type(classifier(names), list[list[Prediction]])
    assert_type(classifier(paths), list[list[Prediction]])
    assert_type(classifier(photos), list[list[Prediction]])
    assert_type(classifier(mixed), list[list[Prediction]])
    assert_type(classifier([pixels]), list[list[Prediction]])
    assert_type(classifier.embed(names), NDArray[np.float32])
    assert_type(classifier.embed(paths, layer="block 3", pool="none"), NDArray[np.float32])
    assert_type(next(classifier.embed(iter(names))), Embedding)
    assert_type(classifier(b"", k=1), list[Prediction])
    assert_type(classifier(mx.array(pixels)), list[Prediction])
    assert_type(classifier(Path(name) for name in names), list[list[Prediction]])
    assert_type(classifier.logits(names), NDArray[np.float32])
    assert_type(classifier.probabilities(pixels), NDArray[np.float32])
    assert_type(classifier.forward(pixels), mx.array)
    assert_type(classifier.with_head(["a", "b"]).replace(info=classifier.info), Classifier)
    classifier.save(Path("model"), force=True)


def stream(classifier: Classifier, names: Iterable[str]) -> Iterator[str]:
    for result in classifier.predict(find_images(names), batch_size=16):
        assert_type(result, Result)
        yield str(result.error or result.predictions[0].label)
    for result in classifier.predict(Path(name) for name in names):
        yield str(result.image)
    for image in find_images([Path("photos"), "more/*.png"]):
        assert_type(image, str | LazyImage)


def load(folder: Path) -> Classifier:
    dtype: DType = "float16"
    try:
        mixer_mlx.load("cifar10", device="cpu")
        return mixer_mlx.load(folder, dtype=dtype)
    except MixerError:
        return mixer_mlx.load(str(folder))


def new() -> MlpMixer:
    config = MixerConfig.variant("S/32", image_size=(64, 64), num_classes=2)
    assert_type(VARIANTS["B/16"]["num_blocks"], int)
    assert_type(config.hidden_act in ("gelu",), bool)
    model = MlpMixer(config)
    assert_type(model(mx.zeros((1, 64, 64, 3))), mx.array)
    assert_type(model.intermediates(mx.zeros((1, 64, 64, 3))).blocks, list[mx.array])
    info = ModelInfo(config, Preprocess((64, 64)), read_file("labels.txt"))
    mixer_mlx.save("folder", model, info)
    mixer_mlx.save(Path("folder"), model, info, force=True)
    return model


class Batches:
    """Training data of one's own."""

    def __len__(self) -> int:
        return 1

    def epoch(
        self, epoch: int, start: int = 0
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32]]]:
        yield np.zeros((2, 64, 64, 3), np.uint8), np.zeros(2, np.int32)


def train(model: MlpMixer, classifier: Classifier) -> None:
    optimizer: Optimizer = "muon"
    recipe = Recipe(epochs=1, optimizer=optimizer, loss="sigmoid", dtype="bfloat16")
    recipe = recipe.replace(freeze="backbone").with_toml("changes.toml")
    assert_type(RECIPES["quick"].recipe, Recipe)
    assert_type(CATALOG["cifar10"].top1, float | None)

    def validate(model: MlpMixer) -> Metrics:
        return evaluate(classifier.forward, Batches().epoch(0))

    preprocess = Preprocess((64, 64))
    for event in fit(model, Batches(), validate, recipe, preprocess=preprocess, folder="run/state"):
        if isinstance(event, StepDone):
            assert_type(event.loss, float)
        elif isinstance(event, EpochDone):
            assert_type(event.raw, Metrics | None)
        elif isinstance(event, Saved):
            assert_type(event.folder, Path)
        elif isinstance(event, Done):
            event.state.fill(model, "ema")
    assert_type(State.load(Path("run/state"), model), State)
