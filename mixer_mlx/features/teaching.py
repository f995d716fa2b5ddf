"""Teaching by examples: an album's classes, the features of its images, and a probe of them.

The album is the truth, and every change is on disk before it counts. Features are float16 numbers,
as in the index of `mixer nearest`, so that a session that continues has those of the one before.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.data.album import MAX_IMAGES, Album
from mixer_mlx.data.dataset import Dataset
from mixer_mlx.errors import ConfigError
from mixer_mlx.images.inputs import ImageInput
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo

from . import probe
from .dataset import Labelled
from .embed import Embedder
from .few_shot import classifier_from, with_head
from .growing import GrowingProbe
from .probe import Probe

SCALE_EXAMPLES = 256
"""At most so many give the scale of live answers; see `probe.scale_for`."""


@dataclass
class Example:
    """An image of the album."""

    path: Path
    label: str
    vector: NDArray[np.float32]


@dataclass(frozen=True)
class Doubt:
    """An example as probes see it that weren't fitted to it.

    `loss` is the cross-entropy of its class in nats; `looks_like` the class with the largest score,
    which may be its own.
    """

    number: int
    label: str
    looks_like: str
    loss: float


class Teaching:
    """The examples of an album, by number, and a probe that is refitted after every change.

    `known` has vectors of images by their paths, e.g. of an index; other images are left out.
    A number stays with its image, whatever its class, until it is removed. Not safe for threads.
    """

    def __init__(
        self, album: Album, embedder: Embedder, known: Mapping[str, NDArray[np.floating]]
    ) -> None:
        self.album, self._embedder = album, embedder
        self.examples: dict[int, Example] = {}
        self.changes = 0
        self._next = 0
        self._growing = GrowingProbe(embedder.info.config.hidden_dim)
        self._probe: Probe | None = None
        self._scaled_at: tuple[list[str], int, float] = ([], 0, 1.0)
        for path in album.images():
            if str(path) in known:
                self._enter(path, known[str(path)], fit=False)
        for name in album.classes():
            self._growing.add(self._matrix(e for e in self._all() if e.label == name), name)
        self._refit()

    def numbers(self, name: str) -> list[int]:
        """The numbers of a class's examples, in the order in which they came."""
        return [number for number, one in self.examples.items() if one.label == name]

    def counts(self) -> dict[str, int]:
        """Number of examples by class, including classes without any."""
        counts = dict.fromkeys(self.album.classes(), 0)
        for example in self._all():
            counts[example.label] = counts.get(example.label, 0) + 1
        return counts

    def classes(self) -> list[str]:
        """The classes that have examples, in the order of the probe's."""
        return [name for name, count in self.counts().items() if count]

    def make(self, name: str) -> str:
        """Make a class. Raises ConfigError."""
        self.changes += 1
        return self.album.make(name)

    def rename(self, old: str, new: str) -> str:
        """Rename a class. Raises ConfigError."""
        new = self.album.rename(old, new)
        for example in self._all():
            if example.label == old:
                example.label, example.path = new, self.album.folder / new / example.path.name
        self._growing.rename(old, new)
        self._refit()
        return new

    def add(self, name: str, data: bytes) -> int | None:
        """Add an image file's content to a class; None if the class has it already.

        Raises ImageError, and ConfigError.
        """
        if len(self.examples) >= MAX_IMAGES:
            raise ConfigError(f"There are {MAX_IMAGES:,} images already; the page takes no more.")
        vector = self.embed(data)
        path = self.album.add(name, data)
        if path is None:
            return None
        number = self._enter(path, vector)
        self._refit()
        return number

    def remove(self, number: int) -> None:
        """Take an example back. Raises ConfigError if there is none of this number."""
        example = self.example(number)
        self.album.remove(example.path)
        self._growing.discard(example.vector[None], example.label)
        del self.examples[number]
        self._refit()

    def relabel(self, number: int, name: str) -> None:
        """Move an example to another class, or confirm its own. Raises ConfigError."""
        example = self.example(number)
        self._moved(example, self.album.relabel(example.path, name))
        self._refit()

    def undo(self) -> None:
        """Take the last `remove` or `relabel` back, if there was one. Raises ConfigError."""
        moved = self.album.undo()
        if moved is None:
            return
        before, now = moved
        for example in self._all():
            if example.path == before:
                self._moved(example, now)
                break
        else:
            self._enter(now, self.embed(str(now)))
        self._refit()

    def example(self, number: int) -> Example:
        """Raises ConfigError if there is none of this number, e.g. as it was removed."""
        if number not in self.examples:
            raise ConfigError("This image is gone; load the page again.")
        return self.examples[number]

    def embed(self, image: ImageInput) -> NDArray[np.float32]:
        """The vector of an image, (C,). Raises ImageError."""
        vector = self._embedder.pixels(self._embedder.preprocess(image)[None])[0]
        return vector.astype(np.float16).astype(np.float32)

    def answer(self, image: ImageInput) -> list[tuple[str, float]]:
        """Classes with their probabilities, most probable first; none before there are two.

        Raises ImageError.
        """
        vector = self.embed(image)
        if self._probe is None:
            return []
        shares = probe.probabilities(self._probe.scores(vector[None]))[0]
        order = np.argsort(-shares, kind="stable")
        classes = self.classes()
        return [(classes[i], float(shares[i])) for i in order]

    def doubts(self) -> list[Doubt]:
        """Unconfirmed examples, those with the largest loss first. Raises ConfigError."""
        labelled, numbers = self.labelled(), list(self.examples)
        labels, classes = labelled.labels, labelled.dataset.classes
        scores = probe.leave_one_out(labelled.features, labels, len(classes))
        losses = probe.losses(scores * probe.scale_for(scores, labels), labels)
        found = [
            Doubt(
                numbers[row],
                classes[labels[row]],
                classes[scores[row].argmax()],
                float(losses[row]),
            )
            for row in np.argsort(-losses, kind="stable")
        ]
        return [
            doubt
            for doubt in found
            if not self.album.is_confirmed(self.examples[doubt.number].path)
        ]

    def labelled(self) -> Labelled:
        """All examples. Raises ConfigError unless two classes have some."""
        classes = self.classes()
        if len(classes) < 2:
            raise ConfigError("Two classes with images are needed; add some more.")
        examples = self._all()
        labels = np.array([classes.index(one.label) for one in examples], np.int32)
        dataset = Dataset(tuple(classes), tuple(one.path for one in examples), labels)
        return Labelled(dataset, self._matrix(examples), np.arange(len(examples)))

    def with_head(self) -> tuple[MlpMixer, ModelInfo]:
        """The model with the probe as its head. Raises ConfigError."""
        labelled = self.labelled()
        head = classifier_from(labelled, None)
        classes = labelled.dataset.classes
        return with_head(self._embedder.model, self._embedder.info, head, classes)

    def vectors(self) -> dict[str, NDArray[np.floating]]:
        """The vectors by path, for `index.store`."""
        return {str(example.path): example.vector for example in self._all()}

    def _all(self) -> list[Example]:
        return list(self.examples.values())

    def _matrix(self, examples: Iterable[Example]) -> NDArray[np.float32]:
        rows = [example.vector for example in examples]
        return np.array(rows, np.float32).reshape(len(rows), self._embedder.info.config.hidden_dim)

    def _enter(self, path: Path, vector: NDArray[np.floating], *, fit: bool = True) -> int:
        example = Example(path, self.album.class_of(path), np.asarray(vector, np.float32))
        if fit:
            self._growing.add(example.vector[None], example.label)
        self.examples[self._next] = example
        self._next += 1
        return self._next - 1

    def _moved(self, example: Example, path: Path) -> None:
        label = self.album.class_of(path)
        self._growing.discard(example.vector[None], example.label)
        self._growing.add(example.vector[None], label)
        example.path, example.label = path, label

    def _refit(self) -> None:
        self.changes += 1
        classes = self.classes()
        self._probe = None
        if len(classes) >= 2:
            self._probe = self._growing.fit(classes).scaled(self._scale(classes))

    def _scale(self, classes: list[str]) -> float:
        """That of some examples, estimated anew when there are a tenth more or less of them."""
        before, count, scale = self._scaled_at
        total = len(self.examples)
        if before == classes and 0.9 * count < total < 1.1 * count:
            return scale
        labelled = self.labelled()
        rows = np.random.default_rng(0).permutation(total)[:SCALE_EXAMPLES]
        features, labels = labelled.features[rows], labelled.labels[rows]
        scale = probe.scale_for(probe.leave_one_out(features, labels, len(classes)), labels)
        self._scaled_at = (classes, total, scale)
        return scale
