"""`mixer cache`: converted models, and indexes of folders, on disk."""

import os
from typing import Annotated

import typer

from mixer_mlx.errors import CheckpointError, SourceError

from .terminal import options, output

cache = typer.Typer(
    help="List, verify or remove converted models and indexes on disk.", no_args_is_help=True
)


@cache.command("list", short_help="List models and indexes, with their size.")
def list_models(format: options.FormatOption = "table") -> None:
    """List converted models, and indexes of folders (`mixer nearest`), with their size on disk."""
    from mixer_mlx.convert.fetch import cache

    rows: list[dict[str, object]] = [
        {
            "kind": "model",
            "source": entry.source,
            "dtype": entry.dtype,
            "revision": entry.revision,
            "mib": round(entry.size / 2**20, 1),
            "path": str(entry.path),
        }
        for entry in cache.entries()
    ]
    rows += [
        {
            "kind": "index",
            "source": index.folder,
            "dtype": "float16",
            "revision": index.fingerprint,
            "mib": round(index.size / 2**20, 1),
            "path": str(index.path),
        }
        for index in cache.indexes()
    ]
    if rows:
        output.write_rows(rows, format)
    else:
        output.say(f"The cache is empty ({cache.root()}).")


@cache.command("remove", short_help="Remove models, downloads and indexes.")
def remove(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Models, or folders with an index, that `mixer cache list` shows.",
            metavar="MODEL|FOLDER...",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove all models, downloads and indexes.")
    ] = False,
) -> None:
    """Remove converted models and the downloads they came from, and indexes of folders.

    The Hub's own cache is left alone: `hf cache` manages it.
    """
    if bool(models) == everything:
        raise typer.BadParameter("name the models to remove, or use --all.")
    from mixer_mlx.convert.fetch import cache

    entries, indexes = cache.entries(), cache.indexes()
    known = {entry.source for entry in entries}
    folders = {index.folder for index in indexes}
    wanted = {_kept_as(model, known, folders) for model in models or ()}
    if missing := wanted - known - folders:
        raise CheckpointError(
            f"{sorted(missing)[0]} isn't in the cache; `mixer cache list` shows what is."
        )
    for entry in entries:
        if everything or entry.source in wanted:
            cache.remove(entry)
            output.say(f"Removed {entry.source} ({entry.dtype}).")
    for index in indexes:
        if everything or index.folder in wanted:
            index.path.unlink(missing_ok=True)
            output.say(f"Removed the index of {index.folder}.")
    if everything:
        cache.remove_downloads()


def _kept_as(model: str, known: set[str], folders: set[str]) -> str:
    """The address of a model, or the folder of an index, in the cache; else the text as it is."""
    from mixer_mlx.convert import locate

    folder = os.path.realpath(model)
    if model not in known and folder in folders:
        return folder
    try:
        return locate.resolve(model).text
    except SourceError:
        return model


@cache.command("verify", short_help="Verify checksums of all models.")
def verify() -> None:
    """Verify checksums of all converted models."""
    from mixer_mlx.convert.fetch import cache

    broken = 0
    for entry in cache.entries():
        fault = cache.verify(entry)
        broken += fault is not None
        print(f"{output.printable(entry.source)} {entry.dtype}: {output.printable(fault or 'ok')}")
    if broken:
        output.say(
            "Remove broken models with `mixer cache remove`; they are then downloaded again."
        )
        raise typer.Exit(1)
