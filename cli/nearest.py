"""`mixer nearest`: the images that look most alike."""

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.choices import DEFAULT_MODEL
from mixer_mlx.errors import ConfigError

from .terminal import options, output
from .terminal import sheet as sheets
from .terminal.images import found_images, no_images
from .terminal.progress import progress
from .terminal.ranks import refuse_several

if TYPE_CHECKING:
    from mixer_mlx.features.embed import Embedder, Embedding
    from mixer_mlx.features.store import Vectors

_MAX_DRAWN = 40
"""Queries on a sheet."""


@dataclass(frozen=True)
class NearestOptions:
    """Each field is an option."""

    images: Annotated[
        list[str],
        typer.Argument(
            help="Query images: files, folders, archives, patterns, URLs; - reads paths from "
            "stdin.",
            metavar="QUERY...",
        ),
    ]
    where: Annotated[
        Path,
        typer.Option(
            "--in",
            help="Images to search: a folder, or a file that mixer embed made.",
            metavar="FOLDER|FILE.npz",
        ),
    ]
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help=f"{options.MODEL_HELP} Default: the file's; for a folder as in `mixer predict`.",
            metavar="MODEL",
        ),
    ] = None
    k: Annotated[int, typer.Option("-k", min=1, help="Number of neighbours.")] = 9
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet",
            help="Draw a contact sheet, a row for each query.",
            metavar="FILE.png",
            dir_okay=False,
        ),
    ] = None
    batch_size: options.BatchSize = 32
    workers: options.Workers = None
    null: options.Null = False
    format: options.FormatOption = "table"
    force: options.Force = False
    dtype: options.DTypeOption = None
    device: options.DeviceOption = None
    quiet: options.Quiet = False


@dataclass(frozen=True)
class Found:
    """A query with the names and similarities of its neighbours, or an error."""

    image: str
    neighbours: tuple[tuple[str, float], ...] = ()
    error: str | None = None


@options.with_options(NearestOptions)
def nearest(asked: NearestOptions) -> None:
    """Find the images most like each query, by their features.

    The index of a folder is kept in the cache; later calls compute only what has changed. A query
    that can't be read is reported and skipped; the exit code is then 1.
    """
    refuse_several("mixer nearest works in a single process only.")
    if asked.sheet:
        sheets.check(asked.sheet, force=asked.force)
    index, embedder = _open(asked)
    if not len(index.names):
        raise ConfigError(f"{asked.where} holds no images that can be read.")
    drawn: list[Found] = []
    count = failed = 0
    for found in _search(asked, index, embedder):
        sys.stdout.writelines(_lines(asked, embedder, found, first=not count))
        count, failed = count + 1, failed + (found.error is not None)
        if asked.sheet and found.error is None and len(drawn) < _MAX_DRAWN:
            drawn.append(found)
    if not count:
        raise no_images()
    if asked.sheet:
        _draw(asked.sheet, drawn, count - failed)
    if failed:
        output.say(f"{failed} of {count} images can't be read.")
        raise typer.Exit(1)


def _open(asked: NearestOptions) -> "tuple[Vectors, Embedder]":
    """The index, up to date, and what turns queries into vectors of its kind."""
    from mixer_mlx.features.store import read

    if asked.where.is_dir():
        embedder = _load(asked, asked.model or _default_model())
        return _index_of_folder(asked, embedder), embedder
    if not asked.where.exists():
        raise ConfigError(
            f"{asked.where} doesn't exist; expected a folder of images, or a file made with "
            "`mixer embed IMAGE... -o FILE.npz`."
        )
    index = read(asked.where)
    if index.array.ndim != 2:
        raise ConfigError(f"{asked.where} has vectors for each token; make it with --pool mean.")
    origin = index.origin
    model = asked.model or (origin.model if origin else _default_model())
    embedder = _load(asked, model, origin.layer if origin else None)
    index.check_model(embedder, asked.where)
    return index, embedder


def _default_model() -> str:
    return os.environ.get("MIXER_MLX_MODEL") or DEFAULT_MODEL


def _load(asked: NearestOptions, model: str, layer: str | None = None) -> "Embedder":
    from mixer_mlx.convert import load_embedder
    from mixer_mlx.features.embed import PRE_LOGITS, Features

    features = Features(layer or PRE_LOGITS, normalize=True)
    with output.fetching(quiet=asked.quiet) as listener:
        return load_embedder(
            model, features, dtype=asked.dtype, device=asked.device, listener=listener
        )


def _index_of_folder(asked: NearestOptions, embedder: "Embedder") -> "Vectors":
    from mixer_mlx.convert.fetch import cache
    from mixer_mlx.features.embed import fingerprint
    from mixer_mlx.features.index import update

    def say(one: "Embedding") -> None:
        output.say(f"{one.image!s}: {one.error}")

    file = cache.index(asked.where, fingerprint(embedder.model, embedder.info))
    with progress(not asked.quiet, []) as tick:
        return update(
            asked.where,
            file,
            embedder,
            asked.model or _default_model(),
            batch_size=asked.batch_size,
            on_unreadable=say,
            tick=tick,
        )


def _search(asked: NearestOptions, index: "Vectors", embedder: "Embedder") -> Iterator[Found]:
    """The neighbours of the queries, in order, a batch at a time."""
    queries = found_images(asked.images, null=asked.null)
    stream = embedder.stream(queries, batch_size=asked.batch_size)
    while batch := list(islice(stream, asked.batch_size)):
        yield from _neighbours(batch, index, asked.k)


def _neighbours(batch: "Iterable[Embedding]", index: "Vectors", k: int) -> Iterator[Found]:
    import numpy as np

    from mixer_mlx.features.neighbours import nearest

    batch = list(batch)
    vectors = [one.vector for one in batch if one.vector is not None]
    if vectors:
        # One more than asked, as an image isn't its own neighbour.
        best = zip(*nearest(index.array, np.stack(vectors), k + 1), strict=True)
    for one in batch:
        name = str(one.image)
        if one.error is not None:
            yield Found(name, error=str(one.error))
            continue
        rows, similarities = next(best)
        named = [
            (index.names[row], float(similarity))
            for row, similarity in zip(rows, similarities, strict=True)
        ]
        others = [(other, value) for other, value in named if not _same(name, other)]
        yield Found(name, tuple(others[:k]))


def _same(one: str, other: str) -> bool:
    return one == other or os.path.realpath(one) == os.path.realpath(other)


def _lines(
    asked: NearestOptions, embedder: "Embedder", found: Found, *, first: bool
) -> Iterator[str]:
    if asked.format == "json":
        if found.error is not None:
            yield output.json_line({"image": found.image, "error": found.error})
        else:
            neighbours = [{"image": name, "similarity": value} for name, value in found.neighbours]
            yield output.json_line({"image": found.image, "neighbours": neighbours})
    elif asked.format == "csv":
        if first:
            yield output.csv_line(["image", "rank", "neighbour", "similarity", "error"])
        if found.error is not None:
            yield output.csv_line([found.image, "", "", "", found.error])
        for rank, (name, value) in enumerate(found.neighbours, start=1):
            yield output.csv_line([found.image, rank, name, value, ""])
    elif found.error is not None:
        output.say(f"{found.image}: {found.error}")
    else:
        yield output.printable(found.image) + "\n"
        for name, value in found.neighbours:
            yield f"  {value:6.3f}  {output.printable(name)}\n"


def _draw(path: Path, found: list[Found], count: int) -> None:
    from mixer_mlx.analysis.sheets import Tile, grouped_sheet
    from mixer_mlx.images.thumbnail import open_thumbnail
    from mixer_mlx.runtime.atomic import written_file

    def tile(name: str, title: str) -> Tile:
        return Tile(open_thumbnail(name), Path(name).name, title)

    if not found:
        output.say(f"Nothing to draw; {path} was not written.")
        return
    shown = f"the first {len(found)} of {count:,} queries" if count > len(found) else ""
    groups = [
        [tile(one.image, "query"), *(tile(name, f"{v:.3f}") for name, v in one.neighbours[:9])]
        for one in found
    ]
    heading = ": ".join(filter(None, ["Most alike, with the cosine of their features", shown]))
    with written_file(path) as temporary:
        grouped_sheet([(heading, groups)]).save(temporary, "PNG")
