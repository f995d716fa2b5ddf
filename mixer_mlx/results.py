"""What a Classifier finds in images, as records and as HTML."""

from dataclasses import asdict, dataclass
from typing import Any

from mixer_mlx.images.inputs import ImageInput, name_of

from . import markup
from .errors import ImageError


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

    def to_dict(self) -> dict[str, Any]:
        """A flat record, for JSON or a table: `pandas.DataFrame(r.to_dict() for r in results)`.

        "image" is the name, None if it has none; "index", "label" and "probability" are the most
        probable class's, and "error" is None; for an image that can't be read, the other way
        round. "predictions" has all, as dicts.
        """
        best = asdict(self.predictions[0]) if self.predictions else {}
        return {
            "image": name_of(self.image),
            **{name: best.get(name) for name in ("index", "label", "probability")},
            "error": None if self.error is None else str(self.error),
            "predictions": [asdict(found) for found in self.predictions],
        }

    def _repr_html_(self) -> str:
        """For notebooks: a thumbnail and bars."""
        rows = [(found.label, found.probability) for found in self.predictions]
        return markup.card(self.image, rows, self.error)


class Results(list[Result]):
    """A list of results that notebooks show as images: `Results(classifier.predict(images))`.

    They show the first 60.
    """

    def _repr_html_(self) -> str:
        shown = self[:_SHOWN]
        return markup.grid((result._repr_html_() for result in shown), len(self) - len(shown))


_SHOWN = 60
