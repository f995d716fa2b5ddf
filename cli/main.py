"""The command `mixer`: its subcommands, and the one place where errors become sentences."""

import os
import sys
import warnings
from typing import Annotated, TextIO

import typer

from mixer_mlx import __version__
from mixer_mlx.cli import (
    cache,
    convert,
    env,
    evaluate,
    export,
    info,
    models,
    output,
    predict,
    resize,
)
from mixer_mlx.errors import MixerError

app = typer.Typer(
    name="mixer",
    help="MLP-Mixer on Apple silicon: classify pictures, convert published weights.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
app.command("predict")(predict.predict)
app.command("convert")(convert.convert)
app.command("export")(export.export)
app.command("resize")(resize.resize)
app.command("evaluate")(evaluate.evaluate)
app.command("models")(models.models)
app.command("info")(info.info)
app.add_typer(cache.app, name="cache")
app.command("env")(env.env)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mixer-mlx {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit: 0 well, 1 failed, 2 wrong usage, 130 interrupted.

    `MIXER_MLX_DEBUG=1` shows the traceback of an error that is otherwise a sentence.
    """
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app()
    except MixerError as error:
        if os.environ.get("MIXER_MLX_DEBUG"):
            raise
        output.say(f"Error: {error}")
        sys.exit(1)
    except SystemExit as leaving:
        # Typer calls a closed pipe a failure; for `| head` it is the end of the job.
        if isinstance(leaving.__context__, BrokenPipeError):
            sys.exit(0)
        raise


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    output.say(f"Warning: {message}")
