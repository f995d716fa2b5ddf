"""`mixer predict`: what do these images show?"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from mixer_mlx.choices import DEFAULT_MODEL
from mixer_mlx.errors import SourceError

from ..terminal import output
from ..terminal.dataclass_options import with_options
from ..terminal.ranks import joined, refuse_several
from .options import PredictOptions

if TYPE_CHECKING:
    from mixer_mlx import Classifier
    from mixer_mlx.images.decode import LazyImage


@with_options(PredictOptions)
def predict(asked: PredictOptions) -> None:
    """Classify images.

    An image that can't be read is reported and the others still come; the exit code is then 1.
    """
    asked.check_usage()
    if "-" in asked.images:
        refuse_several("several processes can't share the list on stdin; name the files.")
    from .run import run

    with joined(asked.recovery) as ranks:
        if ranks.rank == 0:
            asked.check_outputs()
        tally = run(asked, _load(asked), _images(asked), ranks)
    if tally.failed:
        output.say(f"{tally.failed} of {tally.found} images can't be read.")
        raise typer.Exit(1)


def _images(asked: PredictOptions) -> "Iterator[str | LazyImage]":
    from mixer_mlx.images.find import find_images, read_names

    def fetch(url: str) -> bytes:
        from mixer_mlx.convert.fetch.images import fetch

        return fetch(url)

    listed = read_names(sys.stdin.buffer, null=asked.null) if sys.stdin else ()
    return find_images(asked.images, listed=listed, fetch=fetch)


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
