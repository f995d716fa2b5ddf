"""`mixer fine-tune`: a trained model learns other classes."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..terminal import options, output
from ..terminal.dataclass_options import with_options
from . import run
from .options import TrainingOptions

if TYPE_CHECKING:
    from mixer_mlx.checkpoint import ModelInfo
    from mixer_mlx.model import MlpMixer
    from mixer_mlx.training.recipe import Recipe


@with_options(TrainingOptions, recipe="quick")
def fine_tune(
    told: TrainingOptions,
    model: options.Model = options.DEFAULT_MODEL,
    freeze: Annotated[
        options.Freeze | None,
        typer.Option("--freeze", help="backbone: train the head alone."),
    ] = None,
    unfreeze_last: Annotated[
        int | None,
        typer.Option(
            "--unfreeze-last", min=0, help="With --freeze: also train the last so many blocks."
        ),
    ] = None,
) -> None:
    """Fine-tune a model on your own pictures: a folder for each class.

    RUN holds the log, its curves, and best/ and last/ as models; -m RUN means its best. Ctrl-C
    saves; the same command with --resume goes on.
    """
    chosen = told.chosen(freeze=freeze, unfreeze_last=unfreeze_last)
    size = options.parse_image_size(told.image_size) if told.image_size else None

    def build(classes: tuple[str, ...], recipe: "Recipe") -> tuple["MlpMixer", "ModelInfo"]:
        from mixer_mlx.convert import open_model
        from mixer_mlx.training.prepare import adapted

        with output.fetching(quiet=told.quiet) as listeners:
            trained = open_model(model, dtype="float32", **listeners)
        return adapted(trained.model, trained.info, classes, recipe, size)

    run.train("fine-tune", told, chosen, build, model)
