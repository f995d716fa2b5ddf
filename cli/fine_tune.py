"""`mixer fine-tune`: a trained model learns other classes."""

from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.cli import data_options as d
from mixer_mlx.cli import options, output, training
from mixer_mlx.cli import training_options as t

if TYPE_CHECKING:
    from mixer_mlx.checkpoint import ModelInfo
    from mixer_mlx.model import MlpMixer
    from mixer_mlx.training.recipe import Recipe


def fine_tune(
    data: d.Data,
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
    rand_augment: t.RandAugment = None,
    mixup: t.Mixup = None,
    cutmix: t.CutMix = None,
    erasing: t.Erasing = None,
    balance: t.BalanceOption = None,
    layer_decay: t.LayerDecay = None,
    save_every: t.SaveEvery = None,
    patience: t.Patience = None,
    train_split: d.TrainSplit = None,
    val_split: d.ValSplit = None,
    val_fraction: t.ValFraction = None,
    image_column: d.ImageColumn = None,
    label_column: d.LabelColumn = None,
    strict: t.Strict = False,
    resume: t.Resume = False,
    force: options.Force = False,
    show_recipe: t.ShowRecipe = False,
    plan: t.Plan = False,
    preview: t.Preview = None,
    find_lr: t.FindLr = None,
    report_to: t.Reports = None,
    report: t.ReportPage = True,
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
        rand_augment=t.parse_rand_augment(rand_augment),
        mixup=mixup,
        cutmix=cutmix,
        erasing=erasing,
        balance=balance and balance.value,
        layer_decay=layer_decay,
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

    common = t.Common(
        d.DataChoice(data, train_split, val_split, image_column, label_column),
        out,
        recipe,
        chosen,
        val_fraction,
        strict,
        resume,
        force,
        plan,
        quiet,
        preview,
        find_lr,
        tuple(report_to or ()),
        report,
    )
    training.train("fine-tune", common, build, model)
