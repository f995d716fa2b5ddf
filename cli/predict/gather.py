"""The work of `mixer predict` in several processes: rank r takes image r and each n-th after it.

All find the same images, each on its own disk. Batch by batch rank 0 gets what the others found,
and puts it into the order of the images.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

from mixer_mlx.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from mixer_mlx import Classifier, Result
    from mixer_mlx.images.decode import ImageInput
    from mixer_mlx.runtime.ranks import Ranks


def predicted(
    ranks: "Ranks",
    classifier: "Classifier",
    images: "Iterable[ImageInput]",
    *,
    k: int,
    batch_size: int,
    exact: bool,
) -> "Iterator[Result]":
    """`Classifier.predict` of all images on rank 0, and nothing on the others.

    Raises ConfigError where another rank has other images.
    """
    seen: deque[ImageInput] = deque()
    mine = _mine(ranks, images, seen) if ranks.size > 1 else images
    results = classifier.predict(mine, k=k, batch_size=batch_size, exact=exact)
    if ranks.size == 1:
        yield from results
        return
    more = True
    while more:
        batches = ranks.gather([_plain(result) for result in islice(results, batch_size)])
        for row in zip_longest(*batches or ()):
            for rank, values in enumerate(row):
                if seen or values is not None:
                    yield _result(seen.popleft() if seen else None, values, rank)
        more = ranks.share(bool(batches and any(batches)))


def _mine(
    ranks: "Ranks", images: "Iterable[ImageInput]", seen: "deque[ImageInput]"
) -> "Iterator[ImageInput]":
    """This rank's images; rank 0 notes all, a round of them before its own is computed."""
    iterator = iter(images)
    while group := list(islice(iterator, ranks.size)):
        if ranks.rank == 0:
            seen += group
        if ranks.rank < len(group):
            yield group[ranks.rank]


def _plain(result: "Result") -> list[Any]:
    """A result for JSON."""
    error = None if result.error is None else str(result.error)
    return [str(result.image), [asdict(one) for one in result.predictions], error]


def _result(image: "ImageInput | None", values: list[Any] | None, rank: int) -> "Result":
    from mixer_mlx.classify import Prediction, Result

    name, predictions, error = values or (None, [], None)
    if image is None or name != str(image):
        raise ConfigError(
            f"Rank {rank} has {name or 'no image'} where rank 0 has {image or 'none'}; give all "
            "machines the same images, under the same names."
        )
    if error is not None:
        return Result(image, error=ImageError(error))
    return Result(image, tuple(Prediction(**one) for one in predictions))
