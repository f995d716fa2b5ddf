"""`mixer predict`: the command, and the loop over its results."""

import dataclasses
import difflib
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import typer

from mixer_mlx.choices import DEFAULT_MODEL
from mixer_mlx.errors import ConfigError, ImageError, SourceError

from ..terminal import output, sheet
from ..terminal.images import all_missing, found_images, no_images
from ..terminal.options import with_options
from ..terminal.part_file import Kept, without
from ..terminal.progress import Tick, progress
from ..terminal.ranks import joined, refuse_several
from .gather import gathered
from .lines import Lines, csv_lines, error_lines, json_lines, table_lines
from .options import PredictOptions
from .sort_into import Sorter, folder_names
from .write import Writer, to_file, to_stdout

if TYPE_CHECKING:
    from mixer_mlx import Classifier, Result
    from mixer_mlx.images.decode import ImageInput, LazyImage
    from mixer_mlx.runtime.ranks import Ranks


@with_options(PredictOptions)
def predict(asked: PredictOptions) -> None:
    """Classify images.

    An image that can't be read is reported and skipped; the exit code is then 1.
    """
    asked.check_usage()
    if "-" in asked.images:
        refuse_several("several processes can't share the list on stdin; name the files.")
    with joined(asked.recovery) as ranks:
        if ranks.rank == 0:
            asked.check_outputs()
        found = found_images(asked.images, null=asked.null)
        look = asked.only_prints and ranks.size == 1
        missing, found = all_missing(found) if look else (None, found)
        if missing is None:
            tally = classify(asked, _load(asked), found, ranks)
        else:
            tally = _report(asked, missing)
    if tally.failed:
        output.say(f"{tally.failed} of {tally.found} images can't be read.")
    if tally.unsorted:
        output.say(f"{tally.unsorted} of {tally.found} images can't be sorted.")
    if tally.failed or tally.unsorted:
        raise typer.Exit(1)


def _report(asked: PredictOptions, missing: "Sequence[str | LazyImage]") -> "Tally":
    """Write the errors of images that don't exist, for which no model needs to be loaded."""
    from mixer_mlx.images.decode import opened
    from mixer_mlx.results import Result

    if not missing:
        raise no_images()
    with to_stdout(_lines(asked), asked.style) as writer:
        for image in missing:
            try:
                with opened(image):
                    pass
            except ImageError as error:
                writer.add(Result(image, error=error))
    return Tally(len(missing), len(missing))


def _load(asked: PredictOptions) -> "Classifier":
    from mixer_mlx.convert import load

    try:
        with output.fetching(quiet=asked.quiet) as listener:
            return load(asked.model, dtype=asked.dtype, device=asked.device, listener=listener)
    except SourceError as error:
        if asked.model != DEFAULT_MODEL:
            raise
        raise SourceError(
            f"{error} The model in the package needs no network: -m cifar10"
        ) from error


@dataclass
class Tally:
    """The number of images, of those that can't be read, and of those that can't be sorted."""

    found: int
    failed: int
    unsorted: int = 0


def classify(
    asked: PredictOptions, classifier: "Classifier", images: "Iterable[ImageInput]", ranks: "Ranks"
) -> Tally:
    """Classify the images and write the results; of several `ranks`, rank 0 writes.

    Raises MixerError, also if there are no images.
    """
    only = find_classes(asked.only or (), class_names(classifier))
    if ranks.rank:
        kept = Kept(names=Counter(ranks.broadcast(None)))
        deque(_results(asked, classifier, images, kept, ranks), maxlen=0)
        return Tally(0, 0)
    reject_below = _reject_below(classifier) if asked.reject else 0.0
    extras = _extras(asked, classifier)
    with _writer(asked, classifier) as (writer, kept), _progress(asked) as tick:
        tally = Tally(kept.names.total(), kept.failed)
        ranks.broadcast(kept.names)
        for result in _results(asked, classifier, images, kept, ranks):
            tally.found += 1
            tally.failed += result.error is not None
            if shown := selected(result, asked.threshold, only, reject_below):
                # Extras first: --resume skips what is in the file, so it must have been there.
                for extra in extras:
                    extra.add(shown)
                writer.add(shown)
            if tally.found % asked.batch_size == 0:
                writer.flush()
            tick(tally.found, tally.failed)
        if not tally.found:
            raise no_images()
        for extra in extras:
            extra.finish()
            tally.unsorted += extra.failed if isinstance(extra, Sorter) else 0
    return tally


def _results(
    asked: PredictOptions,
    classifier: "Classifier",
    images: "Iterable[ImageInput]",
    kept: Kept,
    ranks: "Ranks",
) -> "Iterator[Result]":
    """The results of all images that `kept` lacks, on rank 0 only."""
    left = without(images, kept, asked.style) if kept.names else images
    predict = partial(classifier.predict, k=asked.k, batch_size=asked.batch_size, exact=asked.exact)
    return predict(left) if ranks.size == 1 else gathered(ranks, left, predict, asked.batch_size)


def _extras(asked: PredictOptions, classifier: "Classifier") -> list[Sorter | sheet.Sheet]:
    extras: list[Sorter | sheet.Sheet] = []
    if asked.sort_into:
        folders = folder_names(class_names(classifier))
        extras.append(Sorter(asked.sort_into, folders, asked.link, asked.dry_run, asked.quiet))
    if asked.sheet:
        extras.append(sheet.Sheet(asked.sheet))
    return extras


@contextmanager
def _writer(asked: PredictOptions, classifier: "Classifier") -> Iterator[tuple[Writer, Kept]]:
    lines = error_lines if asked.dry_run else _lines(asked)
    if asked.target is None:
        with to_stdout(lines, asked.style) as writer:
            yield writer, Kept()
        return
    settings = _settings(asked, classifier)
    sizes = {"k": asked.k, "batch_size": asked.batch_size}
    with to_file(asked.target, lines, asked.style, settings, **sizes) as both:
        yield both


def _lines(asked: PredictOptions) -> Lines:
    if asked.style == "json":
        return json_lines(asked.model)
    nothing = "unsure" if asked.reject else f"nothing above {asked.threshold:.1%}"
    return csv_lines if asked.style == "csv" else table_lines(nothing)


def _settings(asked: PredictOptions, classifier: "Classifier") -> dict[str, object]:
    """Everything but the images that determines the output."""
    from mixer_mlx.runtime import backend

    return {
        "model": asked.model,
        "weights": classifier.info.source.get("sha256"),
        "dtype": backend.dtype_name(classifier.model.dtype),
        "device": classifier.device.type.name,
        "format": str(asked.style),
        "k": asked.k,
        "batch size": asked.batch_size,
        "threshold": asked.threshold,
        **({"reject": True} if asked.reject else {}),
        "exact": asked.exact,
    }


def _progress(asked: PredictOptions) -> AbstractContextManager[Tick]:
    # A table on the same terminal shows the progress itself, and a bar would get in its way.
    shown = not asked.quiet and (asked.out is not None or not sys.stdout.isatty())
    return progress(shown, asked.images)


def class_names(classifier: "Classifier") -> list[str]:
    """A name for every class, as predictions have it."""
    classes = range(classifier.config.num_classes)
    return list(classifier.labels) or [f"class {index}" for index in classes]


def find_classes(wanted: Sequence[str], labels: Sequence[str]) -> frozenset[int]:
    """Names or indices -> indices; a name shared by several classes means all of them.

    Raises ConfigError for an unknown class.
    """
    return frozenset(index for text in wanted for index in _find(text, labels))


def _find(text: str, labels: Sequence[str]) -> list[int]:
    from mixer_mlx.labels import canonical

    name = canonical(text).casefold()
    found = [index for index, label in enumerate(labels) if label.casefold() == name]
    if found:
        return found
    if text.isascii() and text.isdigit() and int(text) < len(labels):
        return [int(text)]
    near = difflib.get_close_matches(text, labels, n=3) or labels[:3]
    raise ConfigError(
        f"The model has no class {text!r}; use an index from 0 to {len(labels) - 1}, or a name "
        f"such as {', '.join(near)}."
    )


def _reject_below(classifier: "Classifier") -> float:
    """The threshold that the model's calibration stored. Raises ConfigError without one."""
    calibration = classifier.info.calibration
    if calibration is None or calibration.reject_below is None:
        why = "isn't calibrated" if calibration is None else "is never 95 % certain"
        raise ConfigError(
            f"The model {why}, so there is no threshold; use --threshold, or fine-tune it with "
            "more validation images."
        )
    return calibration.reject_below


def selected(
    result: "Result", threshold: float, only: frozenset[int], reject_below: float = 0.0
) -> "Result | None":
    """The result without predictions below `threshold`; None if its class isn't in `only`.

    If its most probable class is below `reject_below`, it has no predictions. An image that can't
    be read is always kept.
    """
    if result.error is not None:
        return result
    if result.predictions and result.predictions[0].probability < reject_below:
        result = dataclasses.replace(result, predictions=())
    shown = tuple(entry for entry in result.predictions if entry.probability >= threshold)
    if only and (not shown or shown[0].index not in only):
        return None
    return dataclasses.replace(result, predictions=shown)
