"""The subcommands of `mixer`, each imported when it is asked for."""

import sys
from importlib import import_module
from typing import Annotated

import typer

from mixer_mlx import __version__

from .overview import epilog, overview

_COMMANDS = {
    "predict": ("predict.command", "Classify images."),
    "embed": ("embed", "Write the features of images as vectors."),
    "nearest": ("nearest", "Find the images that look most alike."),
    "serve": ("serve.command", "Classify images on a page in the browser."),
    "teach": ("serve.command", "Teach a model your own classes on a page in the browser."),
    "check": ("check", "Find problems in a dataset before training."),
    "few-shot": ("few_shot", "Measure how well a few images per class suffice."),
    "fine-tune": ("train.command", "Fine-tune a model on your own photos."),
    "train": ("train.command", "Train a model from scratch."),
    "evaluate": ("evaluate", "Measure accuracy on labelled images."),
    "report": ("report", "Write a run's report anew."),
    "explain": ("explain", "Show which parts of an image speak for a class."),
    "visualize": ("visualize", "Draw what a model's units look like."),
    "info": ("info", "Show what is known of a model."),
    "benchmark": ("benchmark", "Measure speed and memory."),
    "convert": ("convert", "Convert published weights to a model folder."),
    "export": ("export", "Export a model to timm, JAX, ONNX, Core ML or a page."),
    "upload": ("upload", "Upload a model to the Hugging Face Hub."),
    "fuse": ("fuse", "Merge LoRA adapters into their base model."),
    "resize": ("resize", "Make a trained model take larger images."),
    "models": ("info", "List the published models."),
    "cache": ("cache", "List, verify or remove converted models and indexes on disk."),
    "env": ("env", "Show the environment and performance tips."),
}
"""Command -> its module here, with a function of the command's name, and its purpose."""


def application(wanted: str | None = None) -> typer.Typer:
    """The command line; of the command `wanted` alone its code and options, None: of all.

    The others have a name and a purpose, which is all that `mixer --help` shows of them.
    """
    app = typer.Typer(
        name="mixer",
        help="MLP-Mixer on Apple silicon: classify images, convert published weights, train your "
        "own.",
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
    )
    app.callback()(_root)
    for name, (module, purpose) in _COMMANDS.items():
        if wanted not in (name, None):
            app.command(name, short_help=purpose)(_another)
            continue
        function = getattr(import_module(f".{module}", __package__), name.replace("-", "_"))
        if isinstance(function, typer.Typer):
            app.add_typer(function, name=name, epilog=epilog(name))
        else:
            app.command(name, short_help=purpose, epilog=epilog(name))(function)
    return app


def _another() -> None:
    """Stand for a command that this process wasn't asked for."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mixer-mlx {__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        sys.stdout.write(overview())
