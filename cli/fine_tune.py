"""`mixer fine-tune`: a trained model learns other classes."""

from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.cli import options, output, training
from mixer_mlx.cli import training_options as t

if TYPE_CHECKING:
    from mixer_mlx.checkpoint import ModelInfo
    from mixer_mlx.model import MlpMixer
    from mixer_mlx.training.recipe import Recipe


def fine_tune(
    data: t.Data,
    out: t.Out = None,
    model: options.Model = options.DEFAULT_MODEL,
    recipe: t.RecipeName = "quick",
    config: t.Config = None,
    image_size: t.ImageSize = None,
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
    epochs: t.Epochs = None,
    steps: t.Steps = None,
    batch_size: t.BatchSize = None,
    accumulation: t.Accumulation = None,
    lr: t.LearningRate = None,
    seed: t.Seed = None,
    dtype: t.TrainingDType = None,
    gradient_checkpointing: t.Checkpointing = None,
    flip: t.Flip = None,
    save_every: t.SaveEvery = None,
    patience: t.Patience = None,
    val_fraction: t.ValFraction = 0.2,
    strict: t.Strict = False,
    resume: t.Resume = False,
    force: options.Force = False,
    show_recipe: t.ShowRecipe = False,
    plan: t.Plan = False,
    quiet: options.Quiet = False,
) -> None:
    """Fine-tune a model on your own pictures: a folder for each class.

    RUN holds the log, its curves, and best/ and last/ as models; -m RUN means its best. Ctrl-C
    saves; the same command with --resume goes on.
    """
    chosen = t.chosen_recipe(
        recipe,
        config,
        freeze=freeze and freeze.value,
        unfreeze_last=unfreeze_last,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        accumulation=accumulation,
        lr=lr,
        seed=seed,
        dtype=dtype and dtype.value,
        gradient_checkpointing=gradient_checkpointing,
        flip=flip,
        save_every=save_every,
        patience=patience,
    )
    if show_recipe:
        t.show_recipe(recipe, chosen)
        return
    size = options.parse_image_size(image_size) if image_size else None

    def build(classes: tuple[str, ...], recipe: "Recipe") -> tuple["MlpMixer", "ModelInfo"]:
        from mixer_mlx.convert import open_model
        from mixer_mlx.training.prepare import adapted

        with output.fetching(quiet=quiet) as listeners:
            trained = open_model(model, dtype="float32", **listeners)
        return adapted(trained.model, trained.info, classes, recipe, size)

    common = t.Common(data, out, recipe, chosen, val_fraction, strict, resume, force, plan, quiet)
    training.train("fine-tune", common, build, model)
