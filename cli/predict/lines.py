"""Results of `mixer predict` as lines: a table, JSON Lines or CSV; and as rows for Parquet."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mixer_mlx.choices import Format

from ..terminal import output

if TYPE_CHECKING:
    from mixer_mlx import Result

PredictionRow = tuple[str, int | None, int | None, str | None, float | None, str | None]
"""One value for each of COLUMNS."""

COLUMNS = ("image", "rank", "index", "label", "probability", "error")
CSV_HEADER = output.csv_line(COLUMNS)


PredictFormat = Literal[Format, "parquet"]
"""How predictions are written."""

_SUFFIXES: dict[str, PredictFormat] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
}

Lines = Callable[["Result"], Iterator[str]]


def chosen_format(format: PredictFormat | None, out: Path | None) -> PredictFormat:
    """The format that was asked for, else by the suffix of the file, else a table."""
    by_suffix = _SUFFIXES.get(out.suffix.lower()) if out else None
    return format or by_suffix or "table"


def error_lines(result: "Result") -> Iterator[str]:
    """Nothing; images that can't be read are reported on stderr."""
    if result.error is not None:
        output.say(f"{result.image}: {result.error}")
    yield from ()


def table_lines(nothing: str) -> Lines:
    """A block per image for people, with `nothing` for one without predictions.

    Images that can't be read are reported on stderr.
    """

    def lines(result: "Result") -> Iterator[str]:
        if result.error is not None:
            yield from error_lines(result)
            return
        yield output.printable(result.image) + "\n"
        if not result.predictions:
            yield f"  {nothing}\n"
        labels = [output.printable(prediction.label) for prediction in result.predictions]
        width = max(map(len, labels), default=0)
        for label, prediction in zip(labels, result.predictions, strict=True):
            yield f"  {label.ljust(width)}  {prediction.probability:6.1%}\n"

    return lines


def json_lines(model: str) -> Lines:
    """One JSON object per line."""

    def lines(result: "Result") -> Iterator[str]:
        values: dict[str, object] = {"image": str(result.image), "model": model}
        if result.error is not None:
            yield output.json_line({**values, "error": str(result.error)})
        else:
            predictions = [asdict(prediction) for prediction in result.predictions]
            yield output.json_line({**values, "predictions": predictions})

    return lines


def csv_lines(result: "Result") -> Iterator[str]:
    """The rows below CSV_HEADER."""
    for row in rows(result):
        yield output.csv_line(["" if value is None else value for value in row])


def rows(result: "Result") -> Iterator[PredictionRow]:
    """One row per prediction; an image without predictions has one row, with its error if any."""
    image = str(result.image)
    if not result.predictions:
        error = None if result.error is None else str(result.error)
        yield image, None, None, None, None, error
    for rank, prediction in enumerate(result.predictions, start=1):
        yield image, rank, prediction.index, prediction.label, prediction.probability, None
