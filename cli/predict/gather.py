"""`mixer predict` in several processes: of n ranks, rank r takes images r, r + n, r + 2n, ...

All find the same images, each on its own disk. After each batch rank 0 gets the results of the
others, and puts them into the order of the images.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

from mixer_mlx.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from mixer_mlx import Result
    from mixer_mlx.images.decode import ImageInput
    from mixer_mlx.runtime.ranks import Ranks


def gathered(
    ranks: "Ranks",
    images: "Iterable[ImageInput]",
    predict: "Callable[[Iterable[ImageInput]], Iterator[Result]]",
    batch_size: int,
) -> "Iterator[Result]":
    """The results of all images on rank 0, nothing on the others; each predicts its shard.

    Raises ConfigError if another rank has other images.
    """
    pending: deque[ImageInput] = deque()
    results = predict(_shard(ranks, images, pending))
    while any(batches := ranks.all_gather([_to_json(r) for r in islice(results, batch_size)])):
        for row in zip_longest(*batches) if ranks.rank == 0 else ():
            for rank, values in enumerate(row):
                if pending or values is not None:
                    yield _result(pending.popleft() if pending else None, values, rank)


def _shard(
    ranks: "Ranks", images: "Iterable[ImageInput]", pending: "deque[ImageInput]"
) -> "Iterator[ImageInput]":
    """This rank's images; rank 0 adds each group of n to `pending` before it yields its own."""
    iterator = iter(images)
    while group := list(islice(iterator, ranks.size)):
        if ranks.rank == 0:
            pending += group
        if ranks.rank < len(group):
            yield group[ranks.rank]


def _to_json(result: "Result") -> list[Any]:
    error = None if result.error is None else str(result.error)
    return [str(result.image), [asdict(one) for one in result.predictions], error]


def _result(image: "ImageInput | None", values: list[Any] | None, rank: int) -> "Result":
    from mixer_mlx.results import Prediction, Result

    name, predictions, error = values or (None, [], None)
    if image is None or name != str(image):
        raise ConfigError(
            f"Rank {rank} has {name or 'no image'} where rank 0 has {image or 'none'!s}; give all "
            "machines the same images, under the same names."
        )
    if error is not None:
        return Result(image, error=ImageError(error))
    return Result(image, tuple(Prediction(**one) for one in predictions))
