"""`mixer train`: a model from nothing."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.cli import data_options as d
from mixer_mlx.cli import options, training
from mixer_mlx.cli import training_options as t

if TYPE_CHECKING:
    from mixer_mlx.checkpoint import ModelInfo
    from mixer_mlx.model import MlpMixer
    from mixer_mlx.training.recipe import Recipe


def train(
    data: d.Data,
    out: t.Out = None,
    variant: Annotated[
        str | None, typer.Option("--variant", help="S/32, S/16, S/8, B/32, B/16, L/32, L/16, H/14.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option("--like", help="The sizes and preprocessing of this model.", metavar="MODEL"),
    ] = None,
    recipe: t.RecipeName = "paper-imagenet",
    config: t.Config = None,
    image_size: t.ImageSize = None,
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
    """Train a model from nothing, by the paper's recipe or another.

    RUN holds the log, its curves, and best/ and last/ as models; -m RUN means its best. Ctrl-C
    saves; the same command with --resume goes on.
    """
    chosen = t.chosen_recipe(
        recipe,
        config,
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
    if (variant is None) == (like is None):
        raise typer.BadParameter("give one of --variant, as B/16, and --like, as cifar10.")
    size = options.parse_image_size(image_size) if image_size else None

    def build(classes: tuple[str, ...], recipe: "Recipe") -> tuple["MlpMixer", "ModelInfo"]:
        from mixer_mlx.config import MixerConfig
        from mixer_mlx.convert import describe
        from mixer_mlx.image import Preprocess
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
    training.train("train", common, build, "nothing")
