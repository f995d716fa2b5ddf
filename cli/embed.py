"""`mixer embed`: images -> feature vectors in a file."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer

from mixer_mlx.choices import DEFAULT_MODEL, Pool

from .terminal import files, options, output
from .terminal.images import found_images, no_images
from .terminal.part_file import Kept, PartFile, whole_batches, without
from .terminal.progress import progress
from .terminal.ranks import refuse_several

if TYPE_CHECKING:
    from mixer_mlx.features.embed import Embedder, Embedding
    from mixer_mlx.features.log import Log
    from mixer_mlx.features.store import Origin

Layer = Annotated[
    str,
    typer.Option(
        "--layer",
        help="Whose output to take: stem, blocks.N (from blocks.0), or pre-logits, which is what "
        "the head classifies.",
    ),
]


@dataclass(frozen=True)
class EmbedOptions:
    """Each field is an option."""

    images: options.ImagesArgument
    model: options.ModelOption = DEFAULT_MODEL
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Output file: .npz, .npy, .jsonl or .parquet. Default: JSON lines on the "
            "terminal.",
            dir_okay=False,
        ),
    ] = None
    layer: Layer = "pre-logits"
    pool: Annotated[
        Pool, typer.Option("--pool", help="Mean over the image's tokens, or a vector per token.")
    ] = "mean"
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale each vector to length 1.")
    ] = False
    half: Annotated[
        bool, typer.Option("--half", help="Write float16: half the size, 3 digits.")
    ] = False
    batch_size: options.BatchSize = 32
    workers: options.Workers = None
    null: options.Null = False
    exact: options.Exact = False
    resume: options.Resume = False
    force: options.Force = False
    dtype: options.DTypeOption = None
    device: options.DeviceOption = None
    quiet: options.Quiet = False

    def check(self) -> None:
        """Raises BadParameter for wrong usage, and MixerError for what is bound to fail."""
        from mixer_mlx.features.pack import SUFFIXES, check_pyarrow
        from mixer_mlx.features.store import names_path

        if self.out is None:
            if self.resume:
                raise typer.BadParameter("--resume needs -o FILE.")
            return
        if self.out.suffix.lower() not in SUFFIXES:
            *most, last = SUFFIXES
            raise typer.BadParameter(
                f"expected a file that ends in {', '.join(most)} or {last}, not {self.out.name}."
            )
        self.target(self.out).check()
        if self.out.suffix.lower() == ".npy":
            files.check_free(names_path(self.out), force=self.force)
        if self.out.suffix.lower() == ".parquet":
            check_pyarrow()

    def target(self, out: Path) -> PartFile:
        """The file of -o."""
        return PartFile(out, resumable=True, force=self.force, resume=self.resume)


@options.with_options(EmbedOptions)
def embed(asked: EmbedOptions) -> None:
    """Write the features of images, as vectors with their names.

    An image that can't be read is reported and skipped; the exit code is then 1.
    """
    refuse_several("mixer embed works in a single process only.")
    asked.check()
    embedder = _load(asked)
    with _writer(asked, embedder) as (add, flush, kept), progress(*_shown(asked)) as tick:
        found, failed = kept.names.total(), kept.failed
        left = without(found_images(asked.images, null=asked.null), kept, "json")
        for one in embedder.stream(left, batch_size=asked.batch_size, exact=asked.exact):
            found, failed = found + 1, failed + (one.error is not None)
            add(one)
            if found % asked.batch_size == 0:
                flush()
            tick(found, failed)
        if not found:
            raise no_images()
    if failed:
        output.say(f"{failed} of {found} images can't be read.")
        raise typer.Exit(1)


def _load(asked: EmbedOptions) -> "Embedder":
    from mixer_mlx.convert import load_embedder
    from mixer_mlx.features.embed import Features

    features = Features(asked.layer, asked.pool, asked.normalize)
    with output.fetching(quiet=asked.quiet) as listener:
        return load_embedder(
            asked.model, features, dtype=asked.dtype, device=asked.device, listener=listener
        )


_Writer = tuple[Callable[["Embedding"], None], Callable[[], None], Kept]
"""Takes an embedding; makes sure that those so far survive; what is there from before."""


@contextmanager
def _writer(asked: EmbedOptions, embedder: "Embedder") -> Iterator[_Writer]:
    if asked.out is None:
        yield _print, sys.stdout.flush, Kept()
        return
    with _to_file(asked, asked.out, embedder) as writer:
        yield writer


@contextmanager
def _to_file(asked: EmbedOptions, out: Path, embedder: "Embedder") -> Iterator[_Writer]:
    from mixer_mlx.features.log import Log
    from mixer_mlx.features.pack import WITH_ERRORS, pack
    from mixer_mlx.features.store import origin_of

    origin = origin_of(embedder, asked.model, exact=asked.exact)
    shape = embedder.features.shape(embedder.info.config)
    dtype: Literal["float16", "float32"] = "float16" if asked.half else "float32"
    says_errors = out.suffix.lower() not in WITH_ERRORS

    def complete(file: BinaryIO, temporary: Path) -> None:
        pack(Log(file, shape, dtype), temporary, out, origin)

    with asked.target(out).open(_settings(asked, origin, embedder), complete) as file:
        log = Log(file, shape, dtype)

        def add(found: "Embedding") -> None:
            if found.error is not None and says_errors:
                output.say(f"{found.image!s}: {found.error}")
            log.add(found)

        yield add, file.flush, _kept(log, asked.batch_size)


def _print(found: "Embedding") -> None:
    from mixer_mlx.features.pack import json_record

    error = None if found.error is None else str(found.error)
    sys.stdout.write(output.json_line(json_record(str(found.image), found.vector, error)))


def _kept(log: "Log", batch_size: int) -> Kept:
    """The complete batches of an interrupted run; what comes after them is cut off."""
    written = ((r.end, r.name, r.error is not None) for r in log.records(vectors=False))
    kept = whole_batches(written, batch_size)
    log.truncate(kept.size)
    return kept


def _settings(asked: EmbedOptions, origin: "Origin", embedder: "Embedder") -> dict[str, object]:
    """Everything but the images that determines the output."""
    from mixer_mlx.runtime import backend

    return {
        **asdict(origin),
        "half": asked.half,
        "batch size": asked.batch_size,
        "dtype": backend.dtype_name(embedder.model.dtype),
        "device": embedder.device.type.name,
    }


def _shown(asked: EmbedOptions) -> tuple[bool, list[str]]:
    return not asked.quiet and (asked.out is not None or not sys.stdout.isatty()), asked.images
