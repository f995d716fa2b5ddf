"""Images -> predictions."""

import itertools
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from numpy.typing import NDArray

from mixer_mlx.images.decode import ImageInput
from mixer_mlx.images.preprocess import Preprocess, normalized
from mixer_mlx.runtime.streams import one_core_each, rounds, streams
from mixer_mlx.runtime.threads import in_threads, workers
from mixer_mlx.runtime.tuning import COMPILE_FORWARD_FROM

from .checkpoint import ModelInfo
from .config import MixerConfig
from .errors import CheckpointError, ImageError
from .model import MlpMixer
from .runtime import backend


@dataclass(frozen=True)
class Prediction:
    """A class and its softmax probability, 0 to 1."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Result:
    """One image's predictions, most probable first, or the error if it can't be read."""

    image: ImageInput
    predictions: tuple[Prediction, ...] = ()
    error: ImageError | None = None


_Decoded: TypeAlias = tuple[ImageInput, NDArray[np.uint8] | ImageError]
_Network: TypeAlias = Callable[[mx.array], mx.array]
"""Normalised images (N, H, W, in) -> logits (N, classes)."""


@dataclass(frozen=True)
class _Pending:
    """A batch that the device is computing, with the threads reserved for it."""

    pixels: NDArray[np.uint8]  # (N, H, W, in)
    parts: int  # parts computed at once
    finite: mx.array  # whether all logits are
    probabilities: mx.array  # (N, k)
    indices: mx.array  # (N, k)
    cores: ExitStack

    def wait(self) -> None:
        """Wait until all is computed."""
        try:
            mx.eval(self.finite, self.probabilities, self.indices)
        finally:
            self.cores.close()


class Classifier:
    """A model with its preprocessing and labels.

    `model` is the MlpMixer: normalised float images (N, H, W, in) -> logits.
    """

    def __init__(self, model: MlpMixer, info: ModelInfo, device: mx.Device | None = None):
        if not info.config.num_classes:
            raise CheckpointError(
                "The model has no head, so it can't classify; for its pre-logits, load it with "
                "mixer_mlx.checkpoint.load."
            )
        self.model = model
        self.info = info
        self.device = device or mx.default_device()
        self._mean, self._std = mx.array(self.preprocess.mean), mx.array(self.preprocess.std)
        mx.eval(model.parameters(), self._mean, self._std)  # only this thread can
        self._compiled = mx.compile(model, inputs=model.state)
        self._sizes: set[int] = set()  # of earlier batches

    @property
    def config(self) -> MixerConfig:
        """The sizes of the model."""
        return self.info.config

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing of the model's input."""
        return self.info.preprocess

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per class, or nothing."""
        return self.info.labels

    @overload
    def __call__(
        self, images: ImageInput, *, k: int = 5, exact: bool = False
    ) -> list[Prediction]: ...

    @overload
    def __call__(
        self, images: list[ImageInput], *, k: int = 5, exact: bool = False
    ) -> list[list[Prediction]]: ...

    def __call__(
        self, images: ImageInput | list[ImageInput], *, k: int = 5, exact: bool = False
    ) -> list[Prediction] | list[list[Prediction]]:
        """The k most probable classes of an image, or of each of a list of images.

        An image is a path, a PIL image, a uint8 array (H, W), (H, W, 3) or (H, W, 4), or from
        `images.find.find_images`; `exact` is that of `Preprocess`. Raises ImageError for the first
        image that can't be read; `predict` continues instead.
        """
        if not isinstance(images, list):
            return self([images], k=k, exact=exact)[0]
        results = []
        for result in self.predict(images, k=k, exact=exact):
            if result.error is not None:
                raise result.error
            results.append(list(result.predictions))
        return results

    def predict(
        self,
        images: Iterable[ImageInput],
        *,
        k: int = 5,
        batch_size: int = 32,
        exact: bool = False,
    ) -> Iterator[Result]:
        """Results in the order of the images, including those that can't be read.

        Images are read lazily, and decoded in threads while the previous batch is computed: memory
        doesn't depend on their number. The last batch may be smaller.
        """
        with closing(self._decoded(images, exact)) as decoded:
            before: list[_Decoded] = []
            running = None
            try:
                while batch := list(itertools.islice(decoded, batch_size)):
                    done, running = running, self._next(batch, k, running)
                    yield from self._results(before, done, k)
                    before = batch
                yield from self._results(before, running, k)
            finally:
                if running:
                    running.cores.close()

    def predictions(self, pixels: NDArray[np.uint8], *, k: int = 5) -> list[tuple[Prediction, ...]]:
        """The k most probable classes of each image: uint8 (N, H, W, in), from `preprocess`.

        Raises CheckpointError as `logits` does.
        """
        return self._predictions(self._start(pixels, k), k)

    def logits(self, pixels: NDArray[np.uint8]) -> mx.array:
        """Pixels, uint8 (N, H, W, in) from `preprocess`, -> float32 logits (N, classes).

        Logits that aren't finite are recomputed in float32, with a RuntimeWarning. Raises
        CheckpointError if they still aren't.
        """
        parts = self._parts(len(pixels))
        with mx.stream(self.device), one_core_each(parts):
            logits = self._forward(pixels)
            if mx.isfinite(logits).all().item():
                return logits
            return self._logits_in_float32(pixels)

    def _forward(self, pixels: NDArray[np.uint8]) -> mx.array:
        """Logits, not yet evaluated."""
        # Only for a size that repeats: compiling doesn't pay off for a single image.
        size = len(pixels)
        again = size in self._sizes
        compiled = again and backend.worth_compiling(self.config, size, COMPILE_FORWARD_FROM)
        network = self._compiled if compiled else self.model
        self._sizes.add(size)
        return self._logits(network, pixels)

    def _logits(self, network: _Network, pixels: NDArray[np.uint8]) -> mx.array:
        """In parts if that is faster, see `streams`."""
        logits: list[mx.array] = []
        turns = rounds(self.config, len(pixels))
        for parts in turns:
            found = []
            for stream, (start, end) in zip(streams(len(parts)), parts, strict=True):
                with mx.stream(stream):
                    images = normalized(mx.array(pixels[start:end]), self._mean, self._std)
                    found.append(network(images).astype(mx.float32))
            if len(turns) > 1 or len(parts) > 1:
                mx.async_eval(found)  # together, before the next round
            logits += found
        return logits[0] if len(logits) == 1 else mx.concatenate(logits)

    def _logits_in_float32(self, pixels: NDArray[np.uint8]) -> mx.array:
        """Run a float32 copy of a half-precision model."""
        if self.model.dtype != mx.float32:
            warnings.warn(
                f"Logits in {backend.dtype_name(self.model.dtype)} were not finite and are "
                "recomputed in float32; use float32 (--dtype float32) to avoid this.",
                RuntimeWarning,
                stacklevel=2,
            )
            copy = MlpMixer(self.config)
            copy.update(tree_map(lambda value: value.astype(mx.float32), self.model.parameters()))
            logits = self._logits(copy, pixels)
            if mx.isfinite(logits).all().item():
                return logits
        raise CheckpointError(
            "The model's logits are not finite even in float32; use intact weights."
        )

    def _parts(self, size: int) -> int:
        """How many parts of a batch are computed at once."""
        return len(rounds(self.config, size)[0])

    def _next(self, batch: list[_Decoded], k: int, before: _Pending | None) -> _Pending | None:
        """Start computing the images of a batch that could be read; None if there are none."""
        good = [value for _, value in batch if not isinstance(value, ImageError)]
        if not good:
            return None
        if before and before.parts != self._parts(len(good)):
            before.wait()  # before the threads of its matrix products change
        return self._start(np.stack(good), k)

    def _start(self, pixels: NDArray[np.uint8], k: int) -> _Pending:
        """Start computing a batch, without waiting for it."""
        parts = self._parts(len(pixels))
        with ExitStack() as cores:
            cores.enter_context(one_core_each(parts))
            with mx.stream(self.device):
                logits = self._forward(pixels)
                found = mx.isfinite(logits).all(), *_top(logits, k)
            mx.async_eval(*found)
            return _Pending(pixels, parts, *found, cores.pop_all())

    def _results(self, batch: list[_Decoded], running: _Pending | None, k: int) -> Iterator[Result]:
        found = iter(self._predictions(running, k) if running else [])
        for image, value in batch:
            if isinstance(value, ImageError):
                yield Result(image, error=value)
            else:
                yield Result(image, next(found))

    def _predictions(self, running: _Pending, k: int) -> list[tuple[Prediction, ...]]:
        """Wait for the device."""
        running.wait()
        probabilities, indices = running.probabilities, running.indices
        if not running.finite.item():
            with mx.stream(self.device), one_core_each(running.parts):
                probabilities, indices = _top(self._logits_in_float32(running.pixels), k)
        rows: Any = zip(indices.tolist(), probabilities.tolist(), strict=True)  # type: ignore[arg-type]
        return [
            tuple(Prediction(i, self._label(i), p) for i, p in zip(*row, strict=True))
            for row in rows
        ]

    def _label(self, index: int) -> str:
        return self.labels[index] if self.labels else f"class {index}"

    def _decoded(
        self, images: Iterable[ImageInput], exact: bool
    ) -> Generator[_Decoded, None, None]:
        """Images in order, each with its pixels or error, decoded in threads."""

        def pixels(image: ImageInput) -> _Decoded:
            try:
                return image, self.preprocess(image, exact=exact)
            except ImageError as error:
                return image, error

        # Few, since an image of an archive may be in memory until it is decoded.
        return in_threads(pixels, images, ahead=2 * workers())


def _top(logits: mx.array, k: int) -> tuple[mx.array, mx.array]:
    """The k largest softmax values of each row, (N, k), and their indices."""
    probabilities = mx.softmax(logits, axis=-1)
    indices = mx.argsort(-probabilities, axis=-1)[:, :k]
    return mx.take_along_axis(probabilities, indices, axis=-1), indices
