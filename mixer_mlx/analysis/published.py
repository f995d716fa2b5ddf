"""An accuracy beside the published one, and by the ReaL labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from mixer_mlx.catalog import CATALOG, CatalogEntry
from mixer_mlx.data.dataset import Entry
from mixer_mlx.data.imagenet import image_number
from mixer_mlx.errors import ConfigError

from .evaluate import Outcome
from .interval import wilson


@dataclass(frozen=True)
class Comparison:
    """Fractions: an accuracy that was `published` and how much higher the measured one is.

    With the 95 % interval of that difference for the number of images, from `low` to `high`.
    """

    published: float
    difference: float
    low: float
    high: float
    source: str


def compare(measured: float, images: int, published: float, source: str) -> Comparison:
    """`measured` and `published` are fractions; `images` is how many the former comes from."""
    low, high = wilson(measured * images, images)
    return Comparison(published, measured - published, low - published, high - published, source)


def published_entry(model: str, covered: int, num_classes: int) -> CatalogEntry | None:
    """The catalogue's entry of a model with a published accuracy, if the data has all classes."""
    entry = CATALOG.get(model)
    return entry if entry and entry.top1 and covered == num_classes else None


def real_top1(
    entries: Sequence[Entry],
    outcomes: Sequence[Outcome],
    real: Sequence[frozenset[int]],
    outputs: Sequence[int | None],
) -> tuple[float, int]:
    """Top-1 by the ReaL labels, as a fraction, and the number of images that have any.

    `entries` and `outcomes` are those of the same images; `outputs` maps ReaL's labels to the
    model's. Raises ConfigError for an image whose name has no number of the validation set.
    """
    right = total = 0
    for entry, outcome in zip(entries, outcomes, strict=True):
        number = image_number(entry)
        if number is None or not 1 <= number <= len(real):
            raise ConfigError(
                f"Expected a validation image of ImageNet, named as ILSVRC2012_val_00000001.JPEG, "
                f"not {entry}; ReaL labels go by these numbers."
            )
        accepted = {outputs[label] for label in real[number - 1]}
        total += bool(accepted)
        right += outcome.predicted in accepted
    if not total:
        raise ConfigError("None of these images has a ReaL label; evaluate on others.")
    return right / total, total
