"""`mixer predict`: what do these images show?"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.errors import SourceError

from ..terminal import options, output
from ..terminal.ranks import joined, refuse_several
from .lines import PredictFormat, chosen_format

if TYPE_CHECKING:
    from mixer_mlx import Classifier
    from mixer_mlx.convert import Listener
    from mixer_mlx.images.decode import LazyImage


def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            help="DecodedImages, folders, .zip and .tar files of them, patterns in quotes, URLs; "
            "- reads a list of them from stdin.",
            metavar="IMAGE...",
        ),
    ],
    model: options.ModelOption = options.DEFAULT_MODEL,
    k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="How many classes to show.")] = 5,
    batch_size: Annotated[
        int, typer.Option("-b", "--batch-size", min=1, help="Images computed at once.")
    ] = 32,
    null: Annotated[
        bool, typer.Option("-0", "--null", help="The list of - has zero bytes in place of lines.")
    ] = False,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Preprocess as reference evaluations do: decode large JPEGs in full, and don't "
            "turn images as their EXIF data says.",
        ),
    ] = False,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", min=0, max=1, help="Leave out predictions less probable than this."
        ),
    ] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help="Only images whose most probable class is this, by name or index; repeatable.",
            metavar="CLASS",
        ),
    ] = None,
    format: Annotated[
        PredictFormat | None,
        typer.Option("--format", help="Default: what the suffix of -o says, else table."),
    ] = None,
    out: options.Out = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run with the same -o broke off.")
    ] = False,
    sort_into: Annotated[
        Path | None,
        typer.Option(
            "--sort-into",
            help="Copy the images into a folder for each class, inside DIR.",
            metavar="DIR",
            file_okay=False,
        ),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="With --sort-into: make links, not copies.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --sort-into: only print what would be done.")
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", help="Draw the images with their classes.", metavar="FILE.png"),
    ] = None,
    force: options.Force = False,
    dtype: options.DTypeOption = None,
    device: options.DeviceOption = None,
    quiet: options.Quiet = False,
) -> None:
    """Name the most probable classes of images.

    An image that can't be read is named with the reason, the others still come, and the exit code
    is 1.
    """
    from .run import Job, run

    job = Job(
        images=images,
        model=model,
        k=k,
        batch_size=batch_size,
        exact=exact,
        threshold=threshold,
        only=tuple(only or ()),
        style=chosen_format(format, out),
        out=out,
        resume=resume,
        sort_into=sort_into,
        link=link,
        dry_run=dry_run,
        sheet=sheet,
        force=force,
        quiet=quiet,
    )
    if misuse := job.misuse():
        raise typer.BadParameter(misuse)
    if "-" in images:
        refuse_several("several processes can't share the list of -; name the files.")
    with joined(job.go_on) as ranks:
        if ranks.rank == 0:
            job.check()
        with output.fetching(quiet=quiet) as listener:
            classifier = _load(model, dtype, device, listener)
        tally = run(job, classifier, _images(images, null=null), ranks)
    if tally.failed:
        output.say(f"{tally.failed} of {tally.found} images can't be read.")
        raise typer.Exit(1)


def _images(images: list[str], *, null: bool) -> "Iterator[str | LazyImage]":
    from mixer_mlx.images.find import find_images, read_names

    def fetch(url: str) -> bytes:
        from mixer_mlx.convert.fetch.images import fetch

        return fetch(url)

    listed = read_names(sys.stdin.buffer, null=null) if sys.stdin else ()
    return find_images(images, listed=listed, fetch=fetch)


def _load(model: str, dtype: str | None, device: str | None, listener: "Listener") -> "Classifier":
    from mixer_mlx.convert import load

    try:
        return load(model, dtype=dtype, device=device, listener=listener)
    except SourceError as error:
        if model != options.DEFAULT_MODEL:
            raise
        raise SourceError(
            f"{error} The model in the package needs no network: -m cifar10"
        ) from error
