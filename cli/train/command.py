"""`mixer train` and `mixer fine-tune`: the two commands, and the model that each starts from."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.choices import DEFAULT_MODEL

from ..terminal import options, output
from ..terminal.options import with_options
from . import folds, run
from .options import TrainingOptions

if TYPE_CHECKING:
    from mixer_mlx.model import MlpMixer
    from mixer_mlx.model_info import ModelInfo
    from mixer_mlx.training.recipe import Recipe


@with_options(TrainingOptions, recipe="cifar")
def train(
    asked: TrainingOptions,
    variant: Annotated[
        str | None, typer.Option("--variant", help=f"Architecture: {options.VARIANTS}.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            "--like", help="Take the architecture and preprocessing of this model.", metavar="MODEL"
        ),
    ] = None,
) -> None:
    """Train a model from scratch.

    RUN gets the log, curves, a report, and best/ and last/ as models; -m RUN uses the best. Ctrl-C
    saves the state, and --resume continues. For a dataset of a million images use --recipe
    paper-imagenet, for ten million paper-imagenet21k. An option without a default has the
    recipe's, which --show-recipe prints.
    """
    chosen = asked.chosen()
    if (variant is None) == (like is None) and not asked.show_recipe:
        raise typer.BadParameter("give either --variant, e.g. B/16, or --like, e.g. cifar10.")
    size = options.parse_image_size(asked.image_size) if asked.image_size else None

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
            sizes = MixerConfig.variant(str(variant), image_size=side)
            if sizes.model_type == "mlp_mixer":
                sizes = sizes.replace(hidden_act="gelu_tanh")  # as the paper's own code
            preprocess = Preprocess(side)
        return new_model(sizes, preprocess, classes, recipe)

    _train("train", asked, chosen, build, "scratch")


@with_options(TrainingOptions, recipe="quick")
def fine_tune(
    asked: TrainingOptions,
    model: options.ModelOption = DEFAULT_MODEL,
    freeze_backbone: Annotated[
        bool, typer.Option("--freeze-backbone", help="Train the head only.")
    ] = False,
    unfreeze_last: Annotated[
        int | None,
        typer.Option(
            "--unfreeze-last",
            min=0,
            help="With --freeze-backbone: also train the last N blocks.",
            metavar="N",
        ),
    ] = None,
    lora_rank: Annotated[
        int | None,
        typer.Option(
            "--lora-rank",
            min=1,
            max=4096,
            help="Train the head and LoRA adapters of rank R only, e.g. 8: less memory for a "
            "large model, and a small file.",
            metavar="R",
        ),
    ] = None,
    lora_scale: Annotated[
        float | None,
        typer.Option(
            "--lora-scale",
            min=0,
            help="With --lora-rank: factor on the adapters' output; 20 by default.",
            metavar="X",
        ),
    ] = None,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="First measure the accuracy with 25, 50 and 100 % of the training images, by a "
            "linear classifier, and say whether more photos would help.",
        ),
    ] = False,
) -> None:
    """Fine-tune a model on your own photos, in one folder per class.

    RUN gets the log, curves, a report, and best/ and last/ as models; -m RUN uses the best. Ctrl-C
    saves the state, and --resume continues. An option without a default has the recipe's, which
    --show-recipe prints.
    """
    chosen = asked.chosen(
        freeze="backbone" if freeze_backbone else None,
        unfreeze_last=unfreeze_last,
        lora_rank=lora_rank,
        lora_scale=lora_scale,
    )
    size = options.parse_image_size(asked.image_size) if asked.image_size else None

    def build(classes: tuple[str, ...], recipe: "Recipe") -> tuple["MlpMixer", "ModelInfo"]:
        from mixer_mlx.convert import open_model
        from mixer_mlx.training.prepare import adapted

        with output.fetching(quiet=asked.quiet) as listener:
            trained = open_model(model, dtype="float32", listener=listener)
        return adapted(trained.model, trained.info, classes, recipe, size)

    _train("fine-tune", asked, chosen, build, model, curve=learning_curve)


def _train(
    command: str,
    asked: TrainingOptions,
    recipe: "Recipe",
    build: run.Build,
    origin: str,
    *,
    curve: bool = False,
) -> None:
    if curve and (asked.folds or asked.is_dry_run):
        raise typer.BadParameter("--learning-curve measures one run; omit --folds, --plan, etc.")
    if asked.folds:
        folds.train(command, asked, recipe, build, origin)
    else:
        run.train(command, asked, recipe, build, origin, curve=curve)
