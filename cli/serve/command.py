"""`mixer serve` and `mixer teach`: a page in the browser, from this machine alone."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.choices import DEFAULT_MODEL
from mixer_mlx.errors import ConfigError

from ..terminal import options, output
from ..terminal.progress import progress
from ..terminal.ranks import refuse_several
from . import server

if TYPE_CHECKING:
    from mixer_mlx.classify import Classifier
    from mixer_mlx.features.embed import Embedder, Embedding
    from mixer_mlx.features.store import Vectors
    from mixer_mlx.features.teaching import Teaching

    from .routes import Site


@dataclass(frozen=True)
class PageOptions:
    """What both commands take; each field is an option."""

    model: options.ModelOption = DEFAULT_MODEL
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=1,
            max=65535,
            help=f"Port to listen on. Default: {server.DEFAULT_PORT}, or a free one.",
        ),
    ] = None
    open: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="Address to listen on; any but this machine's own needs --i-know.",
            metavar="ADDRESS",
        ),
    ] = server.LOOPBACK
    i_know: Annotated[
        bool,
        typer.Option("--i-know", help="Allow a --host that other machines reach, unencrypted."),
    ] = False
    dtype: options.DTypeOption = None
    device: options.DeviceOption = None
    quiet: options.Quiet = False

    def check(self) -> None:
        """Raises MixerError for what can be known to fail before a model is loaded."""
        refuse_several("The page is served by a single process only.")
        server.check_installed()
        server.check_host(self.host, known=self.i_know)
        server.listen(self.host, self.port).close()


@options.with_options(PageOptions)
def serve(
    asked: PageOptions,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            help="Also show the nearest images of this file, made by mixer embed.",
            metavar="FILE.npz",
            dir_okay=False,
        ),
    ] = None,
) -> None:
    """Classify images on a page in the browser: drop, paste, choose them, or use a camera.

    The page is served to this machine alone, by an address with a token that the command prints;
    nothing leaves the machine. Heat maps show why; with --index the nearest images are shown, too.
    """
    asked.check()
    from mixer_mlx.convert import load

    with output.fetching(quiet=asked.quiet) as listener:
        classifier = load(asked.model, dtype=asked.dtype, device=asked.device, listener=listener)
    searched = _index(index, classifier) if index else None
    from .routes import LookSite

    _run(LookSite(asked.model, classifier, searched), asked)


@options.with_options(PageOptions)
def teach(
    asked: PageOptions,
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder with one folder of images per class; a new one is made.",
            metavar="DIR",
            file_okay=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder for models, runs and exports. Default: DIR-taught, beside DIR.",
            metavar="OUT",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Teach a model your own classes on a page in the browser, by camera or from files.

    Each image counts at once: it is a file in DIR/<class>/, and the classifier, a closed-form head
    on the model's features, is fitted anew. Images that are taken back go to DIR/.removed/. The
    page also reviews doubtful images, says whether there are enough, saves, fine-tunes and exports.
    """
    asked.check()
    from mixer_mlx.data.album import Album

    album = Album(Path(os.path.realpath(data)))
    outputs_folder = Path(os.path.realpath(out)) if out else server.output_folder(album.folder)
    if outputs_folder.is_relative_to(album.folder):
        raise ConfigError(f"{outputs_folder} is inside of {data}, whose folders are classes.")
    from mixer_mlx.convert import load_embedder
    from mixer_mlx.convert.fetch import cache
    from mixer_mlx.features import index
    from mixer_mlx.features.embed import fingerprint
    from mixer_mlx.features.teaching import Teaching

    from .outputs import Outputs
    from .teach_routes import TeachSite

    with output.fetching(quiet=asked.quiet) as listener:
        embedder = load_embedder(
            asked.model, dtype=asked.dtype, device=asked.device, listener=listener
        )
    # Not the index of `nearest`, whose vectors have length 1.
    file = cache.index(album.folder, f"{fingerprint(embedder.model, embedder.info)}-head")
    with progress(not asked.quiet, []) as tick:
        known = index.update(
            album.folder, file, embedder, asked.model, on_unreadable=_say_bad, tick=tick
        )
    teaching = Teaching(album, embedder, dict(zip(known.names, known.array, strict=True)))
    keep = partial(_keep, teaching, file, embedder, asked.model)
    _run(TeachSite(asked.model, teaching, Outputs(outputs_folder), keep), asked)


def _run(site: "Site", asked: PageOptions) -> None:
    server.run(site, asked.host, asked.port, browser=asked.open, quiet=asked.quiet)


def _index(file: Path, classifier: "Classifier") -> "tuple[Vectors, Embedder]":
    from mixer_mlx.features.embed import PRE_LOGITS, Embedder, Features
    from mixer_mlx.features.store import read

    vectors = read(file)
    if vectors.array.ndim != 2:
        raise ConfigError(f"{file} has vectors for each token; make it with --pool mean.")
    layer = vectors.origin.layer if vectors.origin else PRE_LOGITS
    features = Features(layer, normalize=True)
    embedder = Embedder(classifier.model, classifier.info, classifier.device, features)
    vectors.check_model(embedder, file)
    return vectors, embedder


def _say_bad(one: "Embedding") -> None:
    output.say(f"Skipped {one.image!s}: {one.error}")


def _keep(teaching: "Teaching", file: Path, embedder: "Embedder", model: str) -> None:
    """Write the features of this session's images, for the next."""
    from mixer_mlx.features import index

    index.store(file, embedder, model, teaching.vectors())
