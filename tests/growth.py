"""How much work is done for a number of images: counts, which no load of the machine changes."""

from collections import Counter
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

from mixer_mlx.cli.predict.sort_into import Sorter
from mixer_mlx.data.dataset import Dataset, hold_out
from mixer_mlx.images import hashing
from mixer_mlx.images.decode import LazyImage
from mixer_mlx.results import Prediction, Result
from mixer_mlx.training.run_log import Log


def greys(count: int, *, alike: bool) -> np.ndarray:
    """Images as `hashing.reduced` makes them, that have nothing in common, or all look alike."""
    rng = np.random.default_rng(0)
    different = rng.integers(0, 256, (count, 8, 9), np.uint8)
    if not alike:
        return different
    close = different[:1].astype(int) + rng.integers(-3, 4, different.shape)
    return np.clip(close, 0, 255).astype(np.uint8)


def pairs_compared(greys: np.ndarray) -> int:
    """Pairs of hashes, and of grey values, that `check` compares."""
    pairs: Counter[str] = Counter()

    def counting(name: str) -> object:
        compare = getattr(hashing, name)

        def compared(one: np.ndarray, others: np.ndarray) -> np.ndarray:
            pairs[name] += len(others)
            return compare(one, others)

        return patch.object(hashing, name, compared)

    with counting("_apart"), counting("_correlation"):  # type: ignore[attr-defined]
        hashing.groups_alike(greys, hashing.NEAR)
    return pairs.total()


def images_read(count: int, folder: Path) -> Counter[int]:
    """Times that `predict --sort-into --dry-run` reads each image; all have one name and size."""
    reads: Counter[int] = Counter()

    def read(number: int) -> bytes:
        reads[number] += 1
        return f"{number % 900:>9}".encode()

    sorter = Sorter(folder, ["a"], quiet=True, dry_run=True)
    for number in range(count):
        image = LazyImage(f"{number}/image.jpg", partial(read, number))
        sorter.add(Result(image, (Prediction(0, "a", 1.0),)))
    assert sorter._done == min(count, 900)
    return reads


class Counted(np.ndarray):
    """Counts the elements that NumPy's functions get of it."""

    seen = 0

    def _count(self, call, args, kwargs):  # type: ignore[no-untyped-def]
        Counted.seen += sum(arg.size for arg in args if isinstance(arg, Counted))
        plain = [arg.view(np.ndarray) if isinstance(arg, Counted) else arg for arg in args]
        return call(*plain, **kwargs)

    def __array_ufunc__(self, ufunc, method, *args, **kwargs):  # type: ignore[no-untyped-def]
        return self._count(getattr(ufunc, method), args, kwargs)

    def __array_function__(self, function, types, args, kwargs):  # type: ignore[no-untyped-def]
        return self._count(function, args, kwargs)


def labels_seen(classes: int) -> int:
    """Labels looked at to hold out images of that many classes, three of each on average."""
    labels = np.random.default_rng(0).integers(0, classes, 3 * classes).astype(np.int32)
    paths = tuple(Path(str(number)) for number in range(len(labels)))
    whole = Dataset(tuple(map(str, range(classes))), paths, labels.view(Counted))
    Counted.seen = 0
    _, val = hold_out(whole, 0.5, seed=3)
    label = int(labels[0])
    members = np.flatnonzero(labels == label)  # the definition of what is held out
    held = np.random.default_rng([3, label]).permutation(members)[: round(len(members) / 2)]
    assert {int(str(path)) for path in val.paths if labels[int(str(path))] == label} == {*held}
    return Counted.seen


def lines_drawn(epochs: int) -> int:
    """Lines of its log, ten an epoch, that a run draws in all its plots of curves."""
    drawn = [0]

    def draw(self: Log, path: Path) -> None:
        drawn.append(len(self.lines))
        self._drawn = len(self.lines)

    with patch.object(Log, "draw", draw):
        log = Log(Path("log.jsonl"))
        for epoch in range(epochs):
            log.lines += [{"event": "step"}] * 9 + [{"event": "epoch"}]
            log.draw_grown(Path("curves.png"))
            assert epoch >= 20 or drawn[-1] == len(log.lines)  # a short run's is up to date
    return sum(drawn)
