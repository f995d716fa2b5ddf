"""The options that `train` and `fine-tune` share."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from mixer_mlx.choices import Balance, DType, Optimizer, RecipeName, Shuffle, TrackerName

from ..terminal import options

if TYPE_CHECKING:
    from mixer_mlx.data.dataset import Hold
    from mixer_mlx.data.read import Dataset
    from mixer_mlx.training.recipe import Recipe


def _known_trackers(wanted: list[str] | None) -> list[str] | None:
    """Typer doesn't support lists of a Literal."""
    for name in wanted or ():
        if name not in get_args(TrackerName):
            raise typer.BadParameter(f"{name!r} isn't one of {', '.join(get_args(TrackerName))}.")
    return wanted


_RECIPES = ", ".join(get_args(RecipeName))


@dataclass(frozen=True)
class TrainingOptions:
    """The options of both commands; those named like a field of `Recipe` change it."""

    data: options.DataArgument = ""
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder of the run. Default: runs/ and a name that is free.",
            metavar="RUN",
        ),
    ] = None
    recipe: Annotated[
        str, typer.Option("--recipe", help=f"Training recipe: {_RECIPES}.", metavar="NAME")
    ] = ""
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="TOML file with fields of the recipe.", exists=True, dir_okay=False
        ),
    ] = None
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size", help="Image size, height x width, e.g. 224 or 224x320.", metavar="HxW"
        ),
    ] = None
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Training epochs.")] = None
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Training steps, instead of epochs.")
    ] = None
    batch_size: Annotated[
        int | None, typer.Option("-b", "--batch-size", min=1, help="Batch size of one update.")
    ] = None
    accumulation: Annotated[
        int | None,
        typer.Option(
            "--grad-accum",
            min=1,
            help="Compute each batch in N parts, to save memory.",
            metavar="N",
        ),
    ] = None
    optimizer: Annotated[
        Optimizer | None,
        typer.Option(
            "--optimizer", help="Optimizer; muon uses AdamW for all but the blocks' matrices."
        ),
    ] = None
    lr: Annotated[float | None, typer.Option("--lr", min=0, help="Peak learning rate.")] = None
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Random seed.")] = None
    dtype: Annotated[
        DType | None,
        typer.Option("--dtype", help="Number format to compute in; the weights stay float32."),
    ] = None
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing",
            help="Recompute activations for gradients: a third slower, far less memory.",
        ),
    ] = None
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip", help="Mirror images at random; disable if orientation matters."
        ),
    ] = None
    rand_augment: Annotated[
        str | None,
        typer.Option(
            "--rand-augment",
            help="RandAugment: operations per image x magnitude (0-30), e.g. 2x15; or none.",
            metavar="LAYERSxMAGNITUDE",
        ),
    ] = None
    shuffle: Annotated[
        Shuffle | None,
        typer.Option(
            "--shuffle",
            help="See all images in a fixed random order of patches and of the pixels inside them, "
            "or of all pixels: an experiment of the paper.",
        ),
    ] = None
    mixup: Annotated[
        float | None,
        typer.Option(
            "--mixup",
            min=0,
            help="Mixup: blend pairs of images, with weights from Beta(P, P).",
            metavar="P",
        ),
    ] = None
    cutmix: Annotated[
        float | None,
        typer.Option(
            "--cutmix",
            min=0,
            help="CutMix: paste boxes from other images, sized by Beta(P, P).",
            metavar="P",
        ),
    ] = None
    erasing: Annotated[
        float | None,
        typer.Option(
            "--random-erasing",
            min=0,
            max=1,
            help="Probability of erasing a box of an image.",
            metavar="P",
        ),
    ] = None
    balance: Annotated[
        Balance | None,
        typer.Option(
            "--balance",
            help="Compensate for rare classes: weight their loss, or sample them more often.",
        ),
    ] = None
    layer_decay: Annotated[
        float | None,
        typer.Option(
            "--layer-decay",
            min=0.001,
            max=1,
            help="Learning-rate factor per layer, towards the stem.",
            metavar="X",
        ),
    ] = None
    save_every: Annotated[
        int | None,
        typer.Option("--save-every", min=1, help="Also save the state every N steps.", metavar="N"),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            min=0,
            help="Stop after N validations without improvement; 0 never stops.",
            metavar="N",
        ),
    ] = None
    train_split: options.TrainSplit = None
    val_split: options.ValSplit = None
    val_fraction: Annotated[
        float | None,
        typer.Option(
            "--val-fraction",
            min=0.01,
            max=0.9,
            help="Hold back this fraction of each class for validation, near-duplicates together. "
            "Default: 0.2 if DATA has no validation split.",
        ),
    ] = None
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            min=2,
            max=100,
            help="Cross-validate: train K models, each validated on another K-th of the images, "
            "then one on all.",
            metavar="K",
        ),
    ] = None
    workers: options.Workers = None
    image_column: options.ImageColumn = None
    label_column: options.LabelColumn = None
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that can't be read.")
    ] = False
    resume: Annotated[bool, typer.Option("--resume", help="Resume the interrupted run in RUN.")] = (
        False
    )
    force: options.Force = False
    show_recipe: Annotated[
        bool,
        typer.Option("--show-recipe", help="Print the recipe as TOML and exit; DATA isn't needed."),
    ] = False
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Measure a few steps, print the time and memory of the run, and exit."
        ),
    ] = False
    preview: Annotated[
        Path | None,
        typer.Option(
            "--preview",
            help="Draw the first batch as the model will see it, and exit.",
            metavar="FILE.png",
            dir_okay=False,
        ),
    ] = None
    find_lr: Annotated[
        Path | None,
        typer.Option(
            "--find-lr",
            help="Try rising learning rates for up to 100 steps, plot the loss, suggest one, and "
            "exit.",
            metavar="PLOT.png",
            dir_okay=False,
        ),
    ] = None
    report_to: Annotated[
        list[str] | None,
        typer.Option(
            "--report-to",
            help="Log metrics to tensorboard, wandb or trackio; repeatable.",
            metavar="TRACKER",
            callback=_known_trackers,
        ),
    ] = None
    report: Annotated[
        bool,
        typer.Option(
            "--report/--no-report",
            help="Write report.html at the end, after one more pass over the validation images.",
        ),
    ] = True
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate/--no-calibrate",
            help="Fit the best model's probabilities to its validation accuracy.",
        ),
    ] = True
    quiet: options.Quiet = False

    def check_usage(self) -> None:
        """Raises BadParameter for options that don't go together."""
        if not self.data:
            raise typer.BadParameter("name the images to train on: DATA.")
        if self.resume and not self.out:
            raise typer.BadParameter("--resume needs the folder of the run: -o RUN.")

    @property
    def is_dry_run(self) -> bool:
        """Whether to look at the training instead of running it."""
        return bool(self.plan or self.preview or self.find_lr)

    def chosen(self, **more: object) -> "Recipe":
        """The named recipe, changed by the file, then by these options and `more`.

        None leaves a field as it is.
        """
        from mixer_mlx.training.recipe import Recipe
        from mixer_mlx.training.recipes import named

        recipe = named(self.recipe).recipe
        if self.config:
            recipe = recipe.with_toml(self.config)
        fields = {field.name for field in dataclasses.fields(Recipe)}
        given = {name: value for name, value in vars(self).items() if name in fields} | more
        given["rand_augment"] = parse_rand_augment(self.rand_augment)
        given["patience"] = False if self.patience == 0 else self.patience
        return recipe.replace(**{k: v for k, v in given.items() if v is not None})

    def where(self) -> dict[str, str | None]:
        """Where the images are, for `mixer report`."""
        return {
            "data": str(Path(self.data).absolute()) if Path(self.data).exists() else self.data,
            "train_split": self.train_split,
            "val_split": self.val_split,
            "image_column": self.image_column,
            "label_column": self.label_column,
        }

    def datasets(self, seed: int, hold: "Hold") -> "tuple[Dataset, Dataset]":
        """Training and validation images; `hold` chooses the latter without a split for them."""
        return options.read_splits(
            self.data,
            self.train_split,
            self.val_split,
            self.image_column,
            self.label_column,
            val_fraction=1 / self.folds if self.folds else self.val_fraction,
            seed=seed,
            quiet=self.quiet,
            hold=hold,
        )


def parse_rand_augment(text: str | None) -> tuple[int, int] | bool | None:
    """ "2x15" -> (2, 15), layers and magnitude; "none" -> False, which a recipe takes as off."""
    if text is None:
        return None
    if text.lower() == "none":
        return False
    found = re.fullmatch("([0-9]{1,3})x([0-9]{1,3})", text.lower())
    if not found:
        raise typer.BadParameter(f"Expected LAYERSxMAGNITUDE, e.g. 2x15, or none, not {text!r}.")
    return int(found[1]), int(found[2])


def show_recipe(name: str, recipe: "Recipe") -> None:
    """Print what a recipe is for, and its values as TOML, which --config reads."""
    from mixer_mlx.training.recipes import named

    print("\n".join(f"# {line}".rstrip() for line in named(name).about.strip().splitlines()))
    for key, value in recipe.to_dict().items():
        if value is not None:
            text = f'"{value}"' if isinstance(value, str) else str(value)
            print(f"{key} = {text.lower() if isinstance(value, bool) else text}")
