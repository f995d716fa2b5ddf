"""`mixer report`: a run's report, written anew."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.errors import ConfigError, MixerError

from .terminal import files, options, output

if TYPE_CHECKING:
    from mixer_mlx.model import MlpMixer


def report(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run of `mixer train` or `fine-tune`.", metavar="RUN")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="The page. Default: report.html in RUN, which is replaced.",
            metavar="FILE.html",
            dir_okay=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Where the run's images are now, if they were moved since.",
            metavar="DATA",
        ),
    ] = None,
    workers: options.Workers = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a run's report anew, from its best model and its validation images.

    For a run that was interrupted, that had --no-report, or whose report is of an older version.
    The images must be those that the run began with.
    """
    from mixer_mlx.training.pages import REPORT_FILE
    from mixer_mlx.training.reopen import Known, Record, reopened

    target = out or run / REPORT_FILE
    record = Record.read(run)
    files.check(
        target,
        force=force or out is None,
        what="A report is HTML",
        suffixes=(".html", ".htm"),
    )
    known = Known(run)
    where = record.data
    place = data or where.get("data")
    if not place:
        raise ConfigError(f"{run} doesn't say where its images are; name them with --data.")
    try:
        datasets = options.read_splits(
            place,
            where.get("train_split"),
            where.get("val_split"),
            where.get("image_column"),
            where.get("label_column"),
            val_fraction=record.val_fraction,
            seed=record.recipe.seed,
            quiet=True,
            hold=known,
        )
    except MixerError as error:
        if data:
            raise
        raise type(error)(f"{error} If the images were moved, name them with --data.") from error
    opened = reopened(record, datasets, known)
    base = _base(run / "best", opened.start.origin, quiet=quiet)
    with nullcontext() if out else opened.locked():  # not while the run goes on
        opened.write_report(target, base)
    if not quiet:
        output.say(f"Wrote {target}.")


def _base(best: Path, origin: str, *, quiet: bool) -> "MlpMixer | None":
    """The model that adapters were trained from."""
    from mixer_mlx.adapters import is_adapters
    from mixer_mlx.convert import open_model

    if not is_adapters(best):
        return None
    with output.fetching(quiet=quiet) as listener:
        return open_model(origin, dtype="float32", listener=listener).model
