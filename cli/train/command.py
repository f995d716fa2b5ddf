"""`mixer train` and `mixer fine-tune`: the two commands, and the model that each begins with."""

import dataclasses
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


@with_options(TrainingOptions, recipe="paper-imagenet")
def train(
    told: TrainingOptions,
    variant: Annotated[
        str | None, typer.Option("--variant", help="S/32, S/16, S/8, B/32, B/16, L/32, L/16, H/14.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option("--like", help="The sizes and preprocessing of this model.", metavar="MODEL"),
    ] = None,
) -> None:
    """Train a model from nothing, by the paper's recipe or another.

    RUN holds the log, its curves, and best/ and last/ as models; -m RUN means its best. Ctrl-C
    saves; the same command with --resume goes on.
    """
    chosen = told.chosen()
    if (variant is None) == (like is None) and not told.show_recipe:
        raise typer.BadParameter("give one of --variant, as B/16, and --like, as cifar10.")
    size = options.parse_image_size(told.image_size) if told.image_size else None

    def build(classes: tuple[str, ...], recipe: "Recipe") -> tuple["MlpMixer", "ModelInfo"]:
        from mixer_mlx.config import MixerConfig
        from mixer_mlx.convert import describe
        from mixer_mlx.images.preprocess import Preprocess
        from mixer_mlx.training.prepare import new_model

        if like:
            known, _ = describe(like)
            sizes, preprocess = known.config, known.preprocess
            if size:
                sizes = sizes.replace(image_size=size)
                preprocess = dataclasses.replace(preprocess, image_size=size)
        else:
            side = size or (224, 224)
            sizes = MixerConfig.variant(str(variant), image_size=side, hidden_act="gelu_tanh")
            preprocess = Preprocess(side)
        return new_model(sizes, preprocess, classes, recipe)

    run.train("train", told, chosen, build, "nothing")


@with_options(TrainingOptions, recipe="quick")
def fine_tune(
    told: TrainingOptions,
    model: options.ModelOption = options.DEFAULT_MODEL,
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
    """Fine-tune a model on your own images: a folder for each class.

    RUN holds the log, its curves, and best/ and last/ as models; -m RUN means its best. Ctrl-C
    saves; the same command with --resume goes on.
    """
    chosen = told.chosen(freeze=freeze, unfreeze_last=unfreeze_last)
    size = options.parse_image_size(told.image_size) if told.image_size else None

    def build(classes: tuple[str, ...], recipe: "Recipe") -> tuple["MlpMixer", "ModelInfo"]:
        from mixer_mlx.convert import open_model
        from mixer_mlx.training.prepare import adapted

        with output.fetching(quiet=told.quiet) as listener:
            trained = open_model(model, dtype="float32", listener=listener)
        return adapted(trained.model, trained.info, classes, recipe, size)

    run.train("fine-tune", told, chosen, build, model)
