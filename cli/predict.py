"""`mixer predict`: what do these pictures show?"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.cli import options, output
from mixer_mlx.errors import ImageError, SourceError

if TYPE_CHECKING:
    from mixer_mlx import Classifier, Result

Lines = Callable[["Result", str], Iterator[str]]


def predict(
    images: Annotated[
        list[Path],
        typer.Argument(help="Pictures, and folders of pictures.", metavar="IMAGE...", exists=False),
    ],
    model: options.Model = options.DEFAULT_MODEL,
    k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="How many classes to show.")] = 5,
    batch_size: Annotated[
        int, typer.Option("-b", "--batch-size", min=1, help="Pictures computed at once.")
    ] = 32,
    format: options.FormatOption = options.Format.TABLE,
    out: options.Out = None,
    force: options.Force = False,
    dtype: options.DTypeOption = None,
    device: options.DeviceOption = None,
    quiet: options.Quiet = False,
) -> None:
    """Name the most probable classes of pictures.

    A picture that can't be read is named with the reason, the others still come, and the exit code
    is 1.
    """
    from mixer_mlx.pictures import find_pictures

    with output.destination(out, force=force) as stream:
        with output.fetching(quiet=quiet) as listeners:
            classifier = _load(model, dtype, device, listeners)
        lines = _FORMATS[format]
        if format is options.Format.CSV:
            stream.write(output.csv_line(_CSV_COLUMNS))
        found = failed = 0
        for result in classifier.predict(find_pictures(images), k=k, batch_size=batch_size):
            stream.writelines(lines(result, model))
            stream.flush()
            found += 1
            failed += result.error is not None
    if not found:
        raise ImageError("There are no pictures in these folders; name the files themselves.")
    if failed:
        output.say(f"{failed} of {found} pictures can't be read.")
        raise typer.Exit(1)


def _load(
    model: str, dtype: str | None, device: str | None, listeners: output.Listeners
) -> "Classifier":
    from mixer_mlx.convert import load

    try:
        return load(model, dtype=dtype, device=device, **listeners)
    except SourceError as error:
        if model != options.DEFAULT_MODEL:
            raise
        raise SourceError(
            f"{error} The model in the package needs no network: -m cifar10"
        ) from error


def _table(result: "Result", model: str) -> Iterator[str]:
    if result.error is not None:
        output.say(f"{result.image}: {result.error}")
        return
    yield output.printable(result.image) + "\n"
    width = max(len(output.printable(prediction.label)) for prediction in result.predictions)
    for prediction in result.predictions:
        label = output.printable(prediction.label).ljust(width)
        yield f"  {label}  {prediction.probability:6.1%}\n"


def _json(result: "Result", model: str) -> Iterator[str]:
    values: dict[str, object] = {"image": str(result.image), "model": model}
    if result.error is not None:
        yield output.json_line({**values, "error": str(result.error)})
    else:
        predictions = [asdict(prediction) for prediction in result.predictions]
        yield output.json_line({**values, "predictions": predictions})


_CSV_COLUMNS = ("image", "rank", "index", "label", "probability", "error")


def _csv(result: "Result", model: str) -> Iterator[str]:
    image = str(result.image)
    if result.error is not None:
        yield output.csv_line([image, "", "", "", "", str(result.error)])
    for rank, prediction in enumerate(result.predictions, start=1):
        yield output.csv_line([image, rank, *asdict(prediction).values(), ""])


_FORMATS: dict[options.Format, Lines] = {
    options.Format.TABLE: _table,
    options.Format.JSON: _json,
    options.Format.CSV: _csv,
}
