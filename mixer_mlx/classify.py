"""Images -> predictions."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence, Sized
from functools import cache, partial
from typing import Any, overload

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mixer_mlx.choices import Pool
from mixer_mlx.features.embed import PRE_LOGITS, Embedder, Embedding, Features
from mixer_mlx.images.inputs import ImageInput, ImagesInput, one_image

from . import channels, checkpoint
from .checks import check_whole
from .errors import CheckpointError, ImageError
from .forward import Finish, Forward, described, everything
from .inference import lean_form
from .loaded import LoadedModel
from .model import MlpMixer
from .model_info import ModelInfo
from .results import Prediction, Result
from .runtime import backend


class Classifier(LoadedModel):
    """A model with its preprocessing and labels.

    `model` is the MlpMixer: normalised float images (N, H, W, in) -> logits. Any thread may call
    it. Its parts can't be replaced; `replace` and `with_head` return another Classifier.
    """

    def __init__(self, model: MlpMixer, info: ModelInfo, device: mx.Device | None = None):
        if not info.config.num_classes:
            raise CheckpointError(
                "The model has no head, so it can't classify; load it by load_embedder for its "
                "features, or give it a head by with_head."
            )
        super().__init__(model, info, device)
        logits = partial(_logits, temperature=info.temperature)
        self._network = Forward(model, info.preprocess, self.device, logits, "logits")
        self._embedders: dict[Features, Embedder] = {}

    def __repr__(self) -> str:
        classes = f"{self.config.num_classes:,} classes"
        return f"Classifier({described(self.model, self.info, self.device, classes)})"

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per class, or nothing."""
        return self.info.labels

    @overload  # a str and a file are iterable, too
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageInput, *, k: int = 5, exact: bool = False
    ) -> list[Prediction]: ...

    @overload
    def __call__(
        self, images: Iterable[ImageInput], *, k: int = 5, exact: bool = False
    ) -> list[list[Prediction]]: ...

    def __call__(
        self, images: ImagesInput, *, k: int = 5, exact: bool = False
    ) -> list[Prediction] | list[list[Prediction]]:
        """The k most probable classes of an image, or of each of several.

        An image is a path, the bytes of a file, a binary file, a PIL image, or an array (H, W),
        (H, W, 1), (H, W, 3) or (H, W, 4) of uint8 or uint16: NumPy's, MLX's or another that NumPy
        can read. Several are a list, a tuple, another iterable, or an array (N, H, W, C). `exact`
        is that of `Preprocess`. Raises ImageError for the first image that can't be read; `predict`
        continues instead.
        """
        if one_image(images):
            return self([images], k=k, exact=exact)[0]
        results = []
        for result in self.predict(images, k=k, exact=exact):
            if result.error is not None:
                raise result.error
            results.append(list(result.predictions))
        return results

    def predict(
        self,
        images: ImagesInput,
        *,
        k: int = 5,
        batch_size: int = 32,
        exact: bool = False,
        progress: bool = False,
    ) -> Iterator[Result]:
        """Results in the order of the images, including those that can't be read.

        `images` are those of a call; one image gives one result. Images are read lazily, and
        decoded in threads while the previous batch is computed: memory doesn't depend on their
        number. The last batch may be smaller. With `progress` a bar shows how far it is: on stderr,
        or below the cell of a notebook.
        """
        rows = self._network.stream(
            images, _top(_checked(k)), self._rows, batch_size=batch_size, exact=exact
        )
        results = self._results(rows)
        return _with_bar(results, images) if progress else results

    def _results(
        self, rows: Iterator[tuple[ImageInput, tuple[Prediction, ...] | ImageError]]
    ) -> Iterator[Result]:
        for image, found in rows:
            if isinstance(found, ImageError):
                yield Result(image, error=found)
            else:
                yield Result(image, found)

    def predictions(self, pixels: NDArray[np.uint8], *, k: int = 5) -> list[tuple[Prediction, ...]]:
        """The k most probable classes of each image: uint8 (N, H, W, in), from `preprocess`.

        Raises ConfigError and CheckpointError as `forward` does.
        """
        return self._rows(self._network(pixels, _top(_checked(k))))

    def forward(self, pixels: NDArray[np.uint8]) -> mx.array:
        """Pixels, uint8 (N, H, W, in) from `preprocess`, -> float32 logits (N, classes), computed.

        They are divided by the temperature of the model's calibration, if it has one.
        Logits that aren't finite are recomputed in float32, with a RuntimeWarning. Raises
        CheckpointError if they still aren't, and ConfigError for other pixels.
        """
        return self._network(pixels)[0]

    def logits(
        self, images: ImagesInput, *, batch_size: int = 32, exact: bool = False
    ) -> NDArray[np.float32]:
        """Logits of several images, (N, classes), or of one, (classes,), as `forward` gives them.

        `images` are those of a call. Raises ImageError for the first that can't be read.
        """
        return self._array(images, everything, batch_size, exact)

    def probabilities(
        self, images: ImagesInput, *, batch_size: int = 32, exact: bool = False
    ) -> NDArray[np.float32]:
        """Softmax of the logits, each row summing to 1; otherwise as `logits`."""
        return self._array(images, _softmax, batch_size, exact)

    def _array(
        self, images: ImagesInput, finish: Finish, batch_size: int, exact: bool
    ) -> NDArray[np.float32]:
        rows = []
        for _, row in self._network.stream(
            images, finish, _numpy_rows, batch_size=batch_size, exact=exact
        ):
            if isinstance(row, ImageError):
                raise row
            rows.append(row)
        found = np.array(rows, np.float32).reshape(len(rows), self.config.num_classes)
        return found[0] if one_image(images) else found

    def replace(
        self, *, model: MlpMixer | None = None, info: ModelInfo | None = None
    ) -> "Classifier":
        """A Classifier with another model, of the same sizes, or other preprocessing or labels."""
        return Classifier(model or self.model, info or self.info, self.device)

    def with_head(self, classes: int | Sequence[str]) -> "Classifier":
        """A Classifier for other classes, a number or names, whose head is new and all zeros.

        All other weights are shared. Raises ConfigError unless there is at least one class.
        """
        labels = () if isinstance(classes, int) else tuple(classes)
        count = classes if isinstance(classes, int) else len(labels)
        check_whole("classes", count, 1, 10**6)
        model = self.model.with_head(count)
        return self.replace(
            model=model,
            info=self.info.replace(config=model.config, labels=labels, calibration=None),
        )

    def with_channels(self, in_channels: int) -> "Classifier":
        """A Classifier for grey images (1), or `forward` with any number of channels, from RGB.

        The stem is adapted as `channels.with_channels` says. Raises ConfigError for a model that
        doesn't take 3 channels.
        """
        model, info = channels.adapted(self.model, self.info, in_channels)
        return self.replace(model=model, info=info)

    def save(
        self, folder: str | os.PathLike[str], *, force: bool = False, beside: bool = False
    ) -> None:
        """Write the model as a model folder; see `mixer_mlx.save`. Raises CheckpointError."""
        checkpoint.save(folder, self.model, self.info, force=force, beside=beside)

    @overload
    def embed(  # type: ignore[overload-overlap]
        self,
        images: Iterator[ImageInput],
        *,
        layer: str = PRE_LOGITS,
        pool: Pool = "mean",
        normalize: bool = False,
        batch_size: int = 32,
        exact: bool = False,
    ) -> Iterator[Embedding]: ...

    @overload
    def embed(
        self,
        images: ImagesInput,
        *,
        layer: str = PRE_LOGITS,
        pool: Pool = "mean",
        normalize: bool = False,
        batch_size: int = 32,
        exact: bool = False,
    ) -> NDArray[np.float32]: ...

    def embed(
        self,
        images: ImagesInput,
        *,
        layer: str = PRE_LOGITS,
        pool: Pool = "mean",
        normalize: bool = False,
        batch_size: int = 32,
        exact: bool = False,
    ) -> NDArray[np.float32] | Iterator[Embedding]:
        """Features of images: an array (N, C), or embeddings one by one for an iterator.

        One image gives its vector alone, (C,). `layer`, `pool` and `normalize` are those of
        `features.embed.Features`; with pool "none" each image has (S, C). Raises ImageError for the
        first image that can't be read; an iterator continues, as in `predict`. Raises ConfigError
        for an unknown layer.
        """
        wanted = Features(layer, pool, normalize)
        if wanted not in self._embedders:
            self._embedders[wanted] = Embedder(self.model, self.info, self.device, wanted)
        embedder = self._embedders[wanted]
        if isinstance(images, Iterator) and not one_image(images):
            return embedder.stream(images, batch_size=batch_size, exact=exact)
        vectors = embedder.array(images, batch_size=batch_size, exact=exact)
        return vectors[0] if one_image(images) else vectors

    def _rows(self, found: tuple[mx.array, ...]) -> list[tuple[Prediction, ...]]:
        probabilities, indices = found
        rows: Any = zip(indices.tolist(), probabilities.tolist(), strict=True)  # type: ignore[arg-type]
        return [
            tuple(Prediction(i, self._label(i), p) for i, p in zip(*row, strict=True))
            for row in rows
        ]

    def _label(self, index: int) -> str:
        return self.labels[index] if self.labels else f"class {index}"


def _with_bar(results: Iterator[Result], images: ImagesInput) -> Iterator[Result]:
    """The results, with a bar that knows the end if `images` have a length."""
    with warnings.catch_warnings(action="ignore"):  # a notebook without widgets has a plain bar
        from tqdm.auto import tqdm

    many = len(images) if isinstance(images, Sized) else None
    total = 1 if one_image(images) else many
    yield from tqdm(results, total=total, unit=" images", smoothing=0)


def _checked(k: int) -> int:
    check_whole("k", k, 1, 10**6)
    return k


def _logits(model: MlpMixer, x: mx.array, temperature: float) -> mx.array:
    logits = lean_form(model, x) if backend.gpu_is_default() else model(x)
    if logits.shape[-1] != model.config.num_classes:  # the head was replaced after all
        raise CheckpointError(
            f"The model gives {logits.shape[-1]} logits, and its config has "
            f"{model.config.num_classes} classes; change the head by with_head."
        )
    return logits if temperature == 1 else logits / temperature


def _softmax(logits: mx.array) -> tuple[mx.array, ...]:
    return (mx.softmax(logits, axis=-1),)


def _numpy_rows(found: tuple[mx.array, ...]) -> list[NDArray[np.float32]]:
    return list(np.array(found[0]))


@cache
def _top(k: int) -> Finish:
    """The k largest softmax values of each row, (N, k), and their indices."""

    def top(logits: mx.array) -> tuple[mx.array, mx.array]:
        probabilities = mx.softmax(logits, axis=-1)
        indices = mx.argsort(-logits, axis=-1)[:, :k]
        return mx.take_along_axis(probabilities, indices, axis=-1), indices

    return top
