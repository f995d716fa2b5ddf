"""`mixer upload`: a model for the Hugging Face Hub."""

from typing import Annotated

import typer

from .terminal import options, output


def upload(
    model: Annotated[
        str,
        typer.Argument(
            help="Model folder, or the folder of a run, whose best model and accuracy are taken; "
            "or whatever else -m takes.",
            metavar="MODEL",
        ),
    ],
    repo: Annotated[
        str, typer.Argument(help="Repository on the Hub: user/repo.", metavar="USER/REPO")
    ],
    public: Annotated[
        bool,
        typer.Option("--public", help="Make a new repository public; otherwise it is private."),
    ] = False,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="Licence for the card, as the Hub spells it, e.g. apache-2.0. Default: that of "
            "the weights it was made from.",
            metavar="NAME",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the files and the card; send nothing."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the model in an existing repository.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Upload a model with a card to the Hugging Face Hub, in one commit.

    timm and transformers load it, if timm has the architecture; mixer always does. Needs HF_TOKEN,
    a token with write access, or a login by the Hub's own command.
    """
    from mixer_mlx.convert import upload as run

    with output.fetching(quiet=quiet) as listener:
        done = run(
            model,
            repo,
            public=public,
            licence=licence,
            dry_run=dry_run,
            force=force,
            listener=listener,
        )
    if not quiet:
        for note in done.notes:
            output.say(f"In mixer-mlx's own layout: {note}.")
    if done.url:
        output.write_rows([{"commit": done.url}], "table")
        return
    output.write_rows([{"file": name, "bytes": size} for name, size in done.files.items()], "table")
    output.write_text(f"\n{done.card}")
    if not quiet:
        kind = "public" if public else "private"
        output.say(f"Nothing was sent; without --dry-run it goes to {repo}, {kind} if it is new.")
