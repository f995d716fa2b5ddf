"""`mixer cache`: converted models on disk."""

from typing import Annotated

import typer

from mixer_mlx.errors import CheckpointError, SourceError

from .terminal import options, output

app = typer.Typer(help="List, verify or remove converted models on disk.", no_args_is_help=True)


@app.command("list")
def list_models(format: options.FormatOption = "table") -> None:
    """List downloaded and converted models, with their size on disk."""
    from mixer_mlx.convert.fetch import cache

    rows = [
        {
            "source": entry.source,
            "dtype": entry.dtype,
            "revision": entry.revision,
            "mib": round(entry.size / 2**20, 1),
            "path": str(entry.path),
        }
        for entry in cache.entries()
    ]
    if rows:
        output.write_rows(rows, format)
    else:
        output.say(f"The cache is empty ({cache.root()}).")


@app.command("remove")
def remove(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names or addresses that `mixer cache list` shows.", metavar="MODEL..."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove all models, downloads and indexes.")
    ] = False,
) -> None:
    """Remove converted models and the downloads they came from.

    The Hub's own cache is left alone: `hf cache` manages it.
    """
    if bool(models) == everything:
        raise typer.BadParameter("name the models to remove, or use --all.")
    from mixer_mlx.convert.fetch import cache

    wanted = {_source(model) for model in models or ()}
    found = [entry for entry in cache.entries() if everything or entry.source in wanted]
    if missing := wanted - {entry.source for entry in found}:
        raise CheckpointError(
            f"{sorted(missing)[0]} isn't in the cache; `mixer cache list` shows what is."
        )
    for entry in found:
        cache.remove(entry)
        output.say(f"Removed {entry.source} ({entry.dtype}).")
    if everything:
        cache.remove_downloads()


def _source(model: str) -> str:
    """The address under which the cache keeps a model; a text that isn't one stays as it is."""
    from mixer_mlx.convert import locate

    try:
        return locate.resolve(model).text
    except SourceError:
        return model


@app.command("verify")
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
