"""Pictures -> predictions."""

import itertools
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, overload

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mixer_mlx import backend
from mixer_mlx.checkpoint import ModelInfo
from mixer_mlx.config import MixerConfig
from mixer_mlx.decode import ImageInput
from mixer_mlx.errors import CheckpointError, ImageError
from mixer_mlx.image import Preprocess
from mixer_mlx.model import MlpMixer


@dataclass(frozen=True)
class Prediction:
    """One class that a picture may show; `probability` is its softmax, 0 to 1."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Result:
    """What became of one picture: predictions, most probable first, or the reason for none."""

    image: ImageInput
    predictions: tuple[Prediction, ...] = ()
    error: ImageError | None = None


class Classifier:
    """A model with all it takes to name what pictures show.

    `model` is the MlpMixer (float images (N, H, W, in), already normalised, to logits).
    """

    def __init__(self, model: MlpMixer, info: ModelInfo, device: mx.Device | None = None):
        if not info.config.num_classes:
            raise CheckpointError(
                "The model has no head, so it can't classify; its features are at `.model`."
            )
        self.model = model
        self.info = info
        self.device = device or mx.default_device()
        self._mean, self._std = mx.array(self.preprocess.mean), mx.array(self.preprocess.std)
        mx.eval(model.parameters(), self._mean, self._std)  # other threads could not

    @property
    def config(self) -> MixerConfig:
        """The sizes of the model."""
        return self.info.config

    @property
    def preprocess(self) -> Preprocess:
        """How a picture becomes the model's input."""
        return self.info.preprocess

    @property
    def labels(self) -> tuple[str, ...]:
        """One name for each class, or nothing."""
        return self.info.labels

    @overload
    def __call__(self, images: ImageInput, *, k: int = 5) -> list[Prediction]: ...

    @overload
    def __call__(self, images: list[ImageInput], *, k: int = 5) -> list[list[Prediction]]: ...

    def __call__(
        self, images: ImageInput | list[ImageInput], *, k: int = 5
    ) -> list[Prediction] | list[list[Prediction]]:
        """The k most probable classes of a picture, or of each of a list of pictures.

        A picture is a path, a PIL image or a uint8 array (H, W), (H, W, 3) or (H, W, 4). Raises
        ImageError for the first that can't be read; `predict` goes on instead.
        """
        if not isinstance(images, list):
            return self([images], k=k)[0]
        results = []
        for result in self.predict(images, k=k):
            if result.error is not None:
                raise result.error
            results.append(list(result.predictions))
        return results

    def predict(
        self, images: Iterable[ImageInput], *, k: int = 5, batch_size: int = 32
    ) -> Iterator[Result]:
        """Results in the order of the pictures; one that can't be read gives a result too.

        Pictures are decoded in threads, at most two batches ahead of the model.
        """
        decoded = self._decode_ahead(images, ahead=2 * batch_size)
        while batch := list(itertools.islice(decoded, batch_size)):
            yield from self._predict_batch(batch, k)

    def logits(self, pixels: np.ndarray) -> mx.array:
        """Pixels, uint8 (N, H, W, in) as `preprocess` makes them, to float32 logits (N, classes).

        Logits that are not finite are computed again in float32, with a RuntimeWarning. Raises
        CheckpointError when that does not help.
        """
        with mx.stream(self.device):
            images = (mx.array(pixels) / 255 - self._mean) / self._std
            logits = self.model(images).astype(mx.float32)
            if mx.isfinite(logits).all().item():
                return logits
            return self._logits_in_float32(images)

    def _logits_in_float32(self, images: mx.array) -> mx.array:
        """Run a float32 copy of a half-precision model."""
        if self.model.dtype != mx.float32:
            warnings.warn(
                f"Logits in {backend.dtype_name(self.model.dtype)} were not finite and are "
                "computed again in float32; choose float32 (--dtype float32) to be spared this.",
                RuntimeWarning,
                stacklevel=2,
            )
            copy = MlpMixer(self.config)
            copy.update(tree_map(lambda value: value.astype(mx.float32), self.model.parameters()))
            logits = copy(images)
            if mx.isfinite(logits).all().item():
                return logits
        raise CheckpointError(
            "The model's logits are not finite even in float32; its weights must be broken."
        )

    def _predict_batch(
        self, batch: list[tuple[ImageInput, np.ndarray | ImageError]], k: int
    ) -> Iterator[Result]:
        pixels = [value for _, value in batch if isinstance(value, np.ndarray)]
        found = iter(self._top(np.stack(pixels), k) if pixels else [])
        for image, value in batch:
            if isinstance(value, ImageError):
                yield Result(image, error=value)
            else:
                yield Result(image, next(found))

    def _top(self, pixels: np.ndarray, k: int) -> list[tuple[Prediction, ...]]:
        logits = self.logits(pixels)
        with mx.stream(self.device):
            probabilities = mx.softmax(logits, axis=-1)
            order = mx.argsort(-probabilities, axis=-1)[:, :k]
            values = mx.take_along_axis(probabilities, order, axis=-1)
            mx.eval(order, values)
        indices: Any = order.tolist()
        chances: Any = values.tolist()
        return [
            tuple(Prediction(i, self._label(i), p) for i, p in zip(*row, strict=True))
            for row in zip(indices, chances, strict=True)
        ]

    def _label(self, index: int) -> str:
        return self.labels[index] if self.labels else f"class {index}"

    def _decode_ahead(
        self, images: Iterable[ImageInput], ahead: int
    ) -> Iterator[tuple[ImageInput, np.ndarray | ImageError]]:
        """Pictures in order with their pixels or error, decoded in threads up to `ahead` early."""
        waiting: deque[tuple[ImageInput, Future[np.ndarray]]] = deque()
        with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:
            try:
                for image in images:
                    waiting.append((image, pool.submit(self.preprocess, image)))
                    if len(waiting) > ahead:
                        yield _finished(*waiting.popleft())
                while waiting:
                    yield _finished(*waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _finished(
    image: ImageInput, future: Future[np.ndarray]
) -> tuple[ImageInput, np.ndarray | ImageError]:
    try:
        return image, future.result()
    except ImageError as error:
        return image, error
