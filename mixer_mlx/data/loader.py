"""Batches of pixels, decoded in threads, in an order that depends only on (seed, epoch)."""

from collections.abc import Callable, Iterator
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixer_mlx.config import MixerConfig
from mixer_mlx.errors import ConfigError, ImageError
from mixer_mlx.images.decode import decode
from mixer_mlx.images.pillow import bare
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.runtime.ranks import ALONE, Ranks
from mixer_mlx.runtime.threads import in_threads

from .augment import Augmentation, batch_generator, generator
from .dataset import Dataset, Entry
from .mixing import Labels, Mixing, SoftLabels, class_weights, drawn_order, repeats, weighted

Batch = tuple[NDArray[np.uint8], NDArray[np.int32]]
"""Pixels (N, H, W, channels), and labels (N,)."""

TrainingBatch = tuple[NDArray[np.uint8], Labels]
"""Pixels (N, H, W, channels), and targets that may be mixed or weighted."""

MEMORY_BYTES = 2**30
"""Total size of the decoded images kept in memory."""

OnUnreadable = Callable[[Entry, ImageError], None]


class DecodedImages:
    """A dataset's images by index, decoded once and kept while there is room.

    `on_unreadable` is called once for each image that can't be read; it may raise. `exact` is
    passed to `decode`.
    """

    def __init__(
        self,
        dataset: Dataset,
        on_unreadable: OnUnreadable,
        *,
        memory_bytes: int = MEMORY_BYTES,
        exact: bool = False,
    ) -> None:
        self.dataset = dataset
        self._exact = exact
        self.unreadable: dict[int, ImageError] = {}
        self._on_unreadable = on_unreadable
        self._kept: dict[int, Image.Image] = {}
        self._room = memory_bytes
        self._lock = Lock()

    def __getitem__(self, index: int) -> Image.Image | None:
        """The image, RGB and upright, or None if it can't be read. Safe to call in threads."""
        if index in self.unreadable:
            return None
        if (kept := self._kept.get(index)) is not None:
            return kept
        path = self.dataset.paths[index]
        try:
            image = decode(path, exact=self._exact)
        except ImageError as error:
            error = bare(error)
            with self._lock:
                known, self.unreadable[index] = index in self.unreadable, error
            if not known:
                self._on_unreadable(path, error)
            return None
        size = 3 * image.width * image.height
        with self._lock:
            if index not in self._kept and size <= self._room:
                self._room -= size
                self._kept[index] = image
        return image


class TrainingBatches:
    """Shuffled, augmented batches of equal size; the incomplete last one is dropped.

    An unreadable image is replaced by the next readable one in the epoch's order, so that batches
    neither shrink nor depend on what was read before. A dataset smaller than a batch becomes one
    smaller batch.

    `mixing` is applied to each batch, with random numbers from (seed, epoch, batch). `balance`
    "loss" weights the targets by class; "sampling" draws an epoch's images with replacement, each
    class with equal probability.

    With several `ranks`, each gets its rows of the batches that a single process would have.
    """

    def __init__(
        self,
        images: DecodedImages,
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
        *,
        mixing: Mixing | None = None,
        balance: str = "none",
        ranks: Ranks = ALONE,
    ) -> None:
        self.images, self.augmentation, self.seed = images, augmentation, seed
        self.batch_size = min(batch_size, len(images.dataset))
        self.mixing, self.balance = mixing, balance
        dataset = images.dataset
        self._weights = class_weights(dataset.labels, len(dataset.classes))
        self._rows = list(range(self.batch_size)[ranks.rows(self.batch_size)])
        # Each image is mixed with the one before it, so this rank needs that one, too.
        self._needs_before = mixing is not None and ranks.size > 1
        if self._needs_before:
            self._rows.insert(0, (self._rows[0] - 1) % self.batch_size)

    def __len__(self) -> int:
        return len(self.images.dataset) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[TrainingBatch]:
        """The batches of an epoch, from batch `start` on."""
        order = self._order(epoch)
        times = repeats(order)
        positions = (
            batch * self.batch_size + row for batch in range(start, len(self)) for row in self._rows
        )
        pixels = in_threads(
            lambda position: self._pixels(order, times, position, epoch),
            positions,
            ahead=2 * len(self._rows),
        )
        for batch in range(start, len(self)):
            rows = [next(pixels) for _ in self._rows]
            labels = self.images.dataset.labels[[index for index, _ in rows]]
            rng = batch_generator(self.seed, epoch, batch)
            yield self._finished(np.stack([row for _, row in rows]), labels, rng)

    def _order(self, epoch: int) -> NDArray[np.intp]:
        rng = np.random.default_rng([self.seed, epoch])
        if self.balance == "sampling":
            return drawn_order(self.images.dataset.labels, rng)
        return rng.permutation(len(self.images.dataset))

    def _finished(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int32], rng: np.random.Generator
    ) -> TrainingBatch:
        targets: Labels = labels
        if self.mixing:
            pixels, targets = self.mixing(pixels, labels, rng)
            if self._needs_before:
                pixels = pixels[1:]
                targets = SoftLabels(targets.labels[:, 1:], targets.weights[:, 1:])
        if self.balance == "loss":
            targets = weighted(targets, self._weights)
        return pixels, targets

    def _pixels(
        self, order: NDArray[np.intp], times: NDArray[np.intp], position: int, epoch: int
    ) -> tuple[int, NDArray[np.uint8]]:
        for step in range(len(order)):
            place = (position + step) % len(order)
            index = int(order[place])
            image = self.images[index]
            if image is not None:
                rng = generator(self.seed, epoch, index, int(times[place]))
                return index, self.augmentation(image, rng)
        raise ConfigError(
            "None of the training images can be read; check them with `analysis.check`."
        )


class EvaluationBatches:
    """All readable images in order, preprocessed as for prediction; the last batch may be short."""

    def __init__(self, images: DecodedImages, preprocess: Preprocess, batch_size: int) -> None:
        self.images, self.preprocess, self.batch_size = images, preprocess, batch_size

    def __iter__(self) -> Iterator[Batch]:
        rows: list[tuple[int, NDArray[np.uint8]]] = []
        indices = range(len(self.images.dataset))
        for row in in_threads(self._pixels, indices, ahead=2 * self.batch_size):
            if row is not None:
                rows.append(row)
            if len(rows) == self.batch_size:
                yield self._batch(rows)
                rows = []
        if rows:
            yield self._batch(rows)

    def _batch(self, rows: list[tuple[int, NDArray[np.uint8]]]) -> Batch:
        labels = self.images.dataset.labels[[index for index, _ in rows]]
        return np.stack([pixels for _, pixels in rows]), labels

    def _pixels(self, index: int) -> tuple[int, NDArray[np.uint8]] | None:
        image = self.images[index]
        return None if image is None else (index, self.preprocess(image))


def noise(config: MixerConfig, size: int) -> np.ndarray:
    """Random pixels in place of decoded images: uint8 (size, H, W, channels)."""
    shape = (size, *config.image_size, config.in_channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
