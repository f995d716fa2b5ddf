"""Options that `train` and `fine-tune` share."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.choices import Balance, DType, Optimizer, Tracker, names

from ..terminal import data_options as d
from ..terminal import options

if TYPE_CHECKING:
    from mixer_mlx.data.read import Dataset
    from mixer_mlx.training.recipe import Recipe


def _known_trackers(wanted: list[str] | None) -> list[str] | None:
    """Typer takes no list of a Literal."""
    for name in wanted or ():
        if name not in names(Tracker):
            raise typer.BadParameter(f"{name!r} isn't one of {', '.join(names(Tracker))}.")
    return wanted


@dataclass(frozen=True)
class TrainingOptions:
    """What `train` and `fine-tune` are told alike: each field is an option of both.

    Those that are called as a field of `Recipe` change it.
    """

    data: d.Data
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The run's folder.", metavar="RUN")
    ] = None
    recipe: Annotated[
        str, typer.Option("--recipe", help="quick, paper-finetune, paper-imagenet, ...")
    ] = ""
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="A TOML file with fields of the recipe.", exists=True, dir_okay=False
        ),
    ] = None
    image_size: Annotated[
        str | None, typer.Option("--image-size", help="Height x width.", metavar="HxW")
    ] = None
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Times through the images.")
    ] = None
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Updates, in place of epochs.")
    ] = None
    batch_size: Annotated[
        int | None, typer.Option("-b", "--batch-size", min=1, help="Images of one update.")
    ] = None
    accumulation: Annotated[
        int | None,
        typer.Option(
            "--accumulation", min=1, help="Compute a batch in so many parts: less memory."
        ),
    ] = None
    optimizer: Annotated[
        Optimizer | None,
        typer.Option("--optimizer", help="Muon is for the blocks' matrices, AdamW for the rest."),
    ] = None
    lr: Annotated[float | None, typer.Option("--lr", min=0, help="Learning rate.")] = None
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of everything that is drawn.")
    ] = None
    dtype: Annotated[
        DType | None,
        typer.Option("--dtype", help="Number format to compute in; weights are float32."),
    ] = None
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing",
            help="Compute blocks twice: a third slower, far less memory.",
        ),
    ] = None
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Mirror images at random; not for what has a side."),
    ] = None
    rand_augment: Annotated[
        str | None,
        typer.Option(
            "--rand-augment",
            help="So many random operations on each image, of a magnitude of 0 to 30; or none.",
            metavar="LAYERSxMAGNITUDE",
        ),
    ] = None
    mixup: Annotated[
        float | None,
        typer.Option("--mixup", min=0, help="Blend images, by Beta(P, P).", metavar="P"),
    ] = None
    cutmix: Annotated[
        float | None,
        typer.Option(
            "--cutmix",
            min=0,
            help="Paste boxes of other images, sized by Beta(P, P).",
            metavar="P",
        ),
    ] = None
    erasing: Annotated[
        float | None,
        typer.Option(
            "--erasing",
            min=0,
            max=1,
            help="Share of the images of which a box is erased.",
            metavar="SHARE",
        ),
    ] = None
    balance: Annotated[
        Balance | None,
        typer.Option(
            "--balance",
            help="Make up for classes with few images: weight their loss, or draw them more often.",
        ),
    ] = None
    layer_decay: Annotated[
        float | None,
        typer.Option(
            "--layer-decay",
            min=0.001,
            max=1,
            help="Each layer's learning rate is this many times that of the one after it.",
            metavar="X",
        ),
    ] = None
    save_every: Annotated[
        int | None,
        typer.Option("--save-every", min=1, help="Save the state every so many steps, too."),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience", min=1, help="Stop after so many epochs without a better result."
        ),
    ] = None
    train_split: d.TrainSplit = None
    val_split: d.ValSplit = None
    val_fraction: Annotated[
        float | None,
        typer.Option(
            "--val-fraction",
            min=0.01,
            max=0.9,
            help="Validate on this share of each class, held back; by default 0.2, where DATA has "
            "no part for that.",
        ),
    ] = None
    image_column: d.ImageColumn = None
    label_column: d.LabelColumn = None
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at an image that can't be read.")
    ] = False
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in RUN.")] = False
    force: options.Force = False
    show_recipe: Annotated[
        bool, typer.Option("--show-recipe", help="Print the recipe and leave.")
    ] = False
    plan: Annotated[
        bool, typer.Option("--plan", help="Measure a few steps, print memory and time, and leave.")
    ] = False
    preview: Annotated[
        Path | None,
        typer.Option(
            "--preview",
            help="Draw the first batch as the model will see it, and leave.",
            metavar="FILE.png",
            dir_okay=False,
        ),
    ] = None
    find_lr: Annotated[
        Path | None,
        typer.Option(
            "--find-lr",
            help="Try rising learning rates for up to 100 steps, draw the loss, suggest one, and "
            "leave.",
            metavar="PLOT.png",
            dir_okay=False,
        ),
    ] = None
    report_to: Annotated[
        list[str] | None,
        typer.Option(
            "--report-to",
            help="tensorboard, wandb or trackio: send it the numbers of the run; once for each.",
            metavar="TRACKER",
            callback=_known_trackers,
        ),
    ] = None
    report: Annotated[
        bool,
        typer.Option(
            "--report/--no-report",
            help="Write report.html in the end, by one more pass over the validation images.",
        ),
    ] = True
    quiet: options.Quiet = False

    @property
    def looks(self) -> bool:
        """Whether something is asked for in place of a training."""
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
        return recipe.replace(**{k: v for k, v in given.items() if v is not None})

    def images(self, seed: int) -> "tuple[Dataset, Dataset]":
        """To train on, and to validate on."""
        return d.read_splits(
            self.data,
            self.train_split,
            self.val_split,
            self.image_column,
            self.label_column,
            val_fraction=self.val_fraction,
            seed=seed,
            quiet=self.quiet,
        )


def parse_rand_augment(text: str | None) -> tuple[int, int] | bool | None:
    """ "2x15" -> (2, 15), layers and magnitude; "none" -> False, which a recipe takes as none."""
    if text is None:
        return None
    if text.lower() == "none":
        return False
    found = re.fullmatch("([0-9]{1,3})x([0-9]{1,3})", text.lower())
    if not found:
        raise typer.BadParameter(
            f"{text!r} is no RandAugment; write layers x magnitude, as 2x15, or none."
        )
    return int(found[1]), int(found[2])


def show_recipe(name: str, recipe: "Recipe") -> None:
    """Print what a recipe is for, and its values as TOML, which --config reads."""
    from mixer_mlx.training.recipes import named

    print("\n".join(f"# {line}" for line in named(name).about.strip().splitlines()))
    for key, value in recipe.to_dict().items():
        if value is not None:
            text = f'"{value}"' if isinstance(value, str) else str(value)
            print(f"{key} = {text.lower() if isinstance(value, bool) else text}")
