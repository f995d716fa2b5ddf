"""The work of `mixer predict`: what was asked for, and the loop over the results."""

import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mixer_mlx.errors import ConfigError, ImageError

from ..terminal import sheet
from ..terminal.progress import Tick, progress
from .gather import predicted
from .lines import Lines, PredictFormat, csv_lines, error_lines, json_lines, table_lines
from .resume import Kept, PartFile, without
from .select import class_names, find_classes, select
from .sort_into import Sorter, folder_names
from .write import Writer, check_pyarrow, to_file, to_stdout

if TYPE_CHECKING:
    from mixer_mlx import Classifier
    from mixer_mlx.images.decode import ImageInput
    from mixer_mlx.runtime.ranks import Ranks

_RESUMABLE = (PredictFormat.JSON, PredictFormat.CSV)


@dataclass(frozen=True)
class Job:
    """The options of `mixer predict`, by their names."""

    images: Sequence[str | os.PathLike[str]]
    model: str
    k: int
    batch_size: int
    threshold: float
    only: tuple[str, ...]
    style: PredictFormat
    out: Path | None
    resume: bool
    sort_into: Path | None
    link: bool
    dry_run: bool
    sheet: Path | None
    force: bool
    quiet: bool
    exact: bool = False

    @property
    def target(self) -> PartFile | None:
        """The file of -o."""
        if self.out is None:
            return None
        # What --only leaves out is not on record, and a sheet needs all images.
        resumable = self.style in _RESUMABLE and not (self.only or self.sheet)
        needs_end = self.style is PredictFormat.PARQUET
        return PartFile(self.out, resumable, needs_end, force=self.force, resume=self.resume)

    @property
    def go_on(self) -> str:
        """What to do after a run that broke off."""
        resumable = self.target and self.target.resumable
        return f"start the command again{', with --resume' if resumable else ''}."

    def misuse(self) -> str | None:
        """What is wrong with the options together."""
        rules = {
            "--resume needs -o FILE.": self.resume and not self.out,
            "--resume goes with json and csv only.": self.resume and self.style not in _RESUMABLE,
            "--resume can't go with --only or --sheet.": self.resume and (self.only or self.sheet),
            "parquet needs -o FILE.": self.style is PredictFormat.PARQUET and not self.out,
            "--link needs --sort-into DIR.": self.link and not self.sort_into,
            "--dry-run needs --sort-into DIR.": self.dry_run and not self.sort_into,
            "--dry-run writes nothing; leave out -o and --sheet.": self.dry_run
            and (self.out or self.sheet),
        }
        return next((rule for rule, broken in rules.items() if broken), None)

    def check(self) -> None:
        """Raises MixerError for what can be known to fail before a model is loaded."""
        if self.target:
            self.target.check()
        if self.style is PredictFormat.PARQUET:
            check_pyarrow()
        if self.sheet:
            sheet.check(self.sheet, force=self.force)
        for folder in filter(Path.is_dir, map(Path, self.images)):
            if self.sort_into and self.sort_into.resolve().is_relative_to(folder.resolve()):
                raise ConfigError(
                    f"{self.sort_into} lies in {folder}, whose images are to be sorted; "
                    "choose a folder beside it."
                )


@dataclass
class Tally:
    """How many images there were, and how many of these can't be read."""

    found: int
    failed: int


def run(
    job: Job, classifier: "Classifier", images: "Iterable[ImageInput]", ranks: "Ranks"
) -> Tally:
    """Classify and write everything that was asked for; of several `ranks` rank 0 writes.

    Raises MixerError, ImageError where there are no images at all.
    """
    only = find_classes(job.only, class_names(classifier))
    results = partial(
        predicted, ranks, classifier, k=job.k, batch_size=job.batch_size, exact=job.exact
    )
    if ranks.rank:
        left = without(images, Kept(names=Counter(ranks.broadcast(None))), job.style)
        deque(results(left), maxlen=0)
        return Tally(0, 0)
    extras = _extras(job, classifier)
    with _writer(job, classifier) as (writer, kept), _progress(job) as tick:
        tally = Tally(kept.count, kept.failed)
        ranks.broadcast(kept.names)
        left = without(images, kept, job.style)
        for result in results(left):
            tally.found += 1
            tally.failed += result.error is not None
            if shown := select(result, job.threshold, only):
                # Extras first: what a file has, for --resume to leave out, has been through them.
                for extra in extras:
                    extra.add(shown)
                writer.add(shown)
            if tally.found % job.batch_size == 0:
                writer.flush()
            tick(tally.found, tally.failed)
        if not tally.found:
            raise ImageError("There are no images in these folders; name the files themselves.")
        for extra in extras:
            extra.finish()
    return tally


def _extras(job: Job, classifier: "Classifier") -> list[Sorter | sheet.Sheet]:
    extras: list[Sorter | sheet.Sheet] = []
    if job.sort_into:
        folders = folder_names(class_names(classifier))
        extras.append(Sorter(job.sort_into, folders, job.link, job.dry_run, job.quiet))
    if job.sheet:
        extras.append(sheet.Sheet(job.sheet))
    return extras


@contextmanager
def _writer(job: Job, classifier: "Classifier") -> Iterator[tuple[Writer, Kept]]:
    lines = error_lines if job.dry_run else _lines(job)
    if job.target is None:
        with to_stdout(lines, job.style) as writer:
            yield writer, Kept()
        return
    settings = _settings(job, classifier)
    sizes = {"k": job.k, "batch_size": job.batch_size}
    with to_file(job.target, lines, job.style, settings, **sizes) as both:
        yield both


def _lines(job: Job) -> Lines:
    if job.style is PredictFormat.JSON:
        return json_lines(job.model)
    return csv_lines if job.style is PredictFormat.CSV else table_lines(job.threshold)


def _settings(job: Job, classifier: "Classifier") -> dict[str, object]:
    """All that the bytes of the output depend on, beside the images."""
    from mixer_mlx.runtime import backend

    return {
        "model": job.model,
        "weights": classifier.info.source.get("sha256"),
        "dtype": backend.dtype_name(classifier.model.dtype),
        "device": classifier.device.type.name,
        "format": str(job.style),
        "k": job.k,
        "batch size": job.batch_size,
        "threshold": job.threshold,
        "exact": job.exact,
    }


def _progress(job: Job) -> AbstractContextManager[Tick]:
    # Tables on the same terminal show the progress themselves, and a bar would be in their way.
    shown = not job.quiet and (job.out is not None or not sys.stdout.isatty())
    return progress(shown, job.images)
