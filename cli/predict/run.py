"""The work of `mixer predict`: the loop over the results, and where they go."""

import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mixer_mlx.errors import ImageError

from ..terminal import sheet
from ..terminal.progress import Tick, progress
from .gather import predicted
from .lines import Lines, csv_lines, error_lines, json_lines, table_lines
from .options import PredictOptions
from .resume import Kept, without
from .select import class_names, find_classes, select
from .sort_into import Sorter, folder_names
from .write import Writer, to_file, to_stdout

if TYPE_CHECKING:
    from mixer_mlx import Classifier
    from mixer_mlx.images.decode import ImageInput
    from mixer_mlx.runtime.ranks import Ranks


@dataclass
class Tally:
    """How many images there were, and how many of these can't be read."""

    found: int
    failed: int


def run(
    asked: PredictOptions, classifier: "Classifier", images: "Iterable[ImageInput]", ranks: "Ranks"
) -> Tally:
    """Classify and write everything that was asked for; of several `ranks` rank 0 writes.

    Raises MixerError, ImageError where there are no images at all.
    """
    only = find_classes(asked.only or (), class_names(classifier))
    results = partial(
        predicted, ranks, classifier, k=asked.k, batch_size=asked.batch_size, exact=asked.exact
    )
    if ranks.rank:
        left = without(images, Kept(names=Counter(ranks.broadcast(None))), asked.style)
        deque(results(left), maxlen=0)
        return Tally(0, 0)
    extras = _extras(asked, classifier)
    with _writer(asked, classifier) as (writer, kept), _progress(asked) as tick:
        tally = Tally(kept.count, kept.failed)
        ranks.broadcast(kept.names)
        left = without(images, kept, asked.style)
        for result in results(left):
            tally.found += 1
            tally.failed += result.error is not None
            if shown := select(result, asked.threshold, only):
                # Extras first: what a file has, for --resume to leave out, has been through them.
                for extra in extras:
                    extra.add(shown)
                writer.add(shown)
            if tally.found % asked.batch_size == 0:
                writer.flush()
            tick(tally.found, tally.failed)
        if not tally.found:
            raise ImageError("No images found; name the files, or folders that contain some.")
        for extra in extras:
            extra.finish()
    return tally


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
    return csv_lines if asked.style == "csv" else table_lines(asked.threshold)


def _settings(asked: PredictOptions, classifier: "Classifier") -> dict[str, object]:
    """All that the bytes of the output depend on, beside the images."""
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
        "exact": asked.exact,
    }


def _progress(asked: PredictOptions) -> AbstractContextManager[Tick]:
    # Tables on the same terminal show the progress themselves, and a bar would be in their way.
    shown = not asked.quiet and (asked.out is not None or not sys.stdout.isatty())
    return progress(shown, asked.images)
