"""Options that `train` and `fine-tune` share."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.cli import options
from mixer_mlx.cli.data_options import DataChoice

if TYPE_CHECKING:
    from mixer_mlx.training.recipe import Recipe


class Balance(StrEnum):
    """What makes up for classes with few pictures."""

    NONE = "none"
    LOSS = "loss"
    SAMPLING = "sampling"


class ReportTo(StrEnum):
    """Who else is told how a run goes."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    TRACKIO = "trackio"


Out = Annotated[Path | None, typer.Option("-o", "--out", help="The run's folder.", metavar="RUN")]
RecipeName = Annotated[
    str, typer.Option("--recipe", help="quick, paper-finetune, paper-imagenet, ...")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", help="A TOML file with fields of the recipe.", exists=True, dir_okay=False
    ),
]
ImageSize = Annotated[
    str | None, typer.Option("--image-size", help="Height x width.", metavar="HxW")
]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="Times through the pictures.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Updates, in place of epochs.")]
BatchSize = Annotated[
    int | None, typer.Option("-b", "--batch-size", min=1, help="Pictures of one update.")
]
Accumulation = Annotated[
    int | None,
    typer.Option("--accumulation", min=1, help="Compute a batch in so many parts: less memory."),
]
LearningRate = Annotated[float | None, typer.Option("--lr", min=0, help="Learning rate.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Of everything that is drawn.")]
TrainingDType = Annotated[
    options.DType | None,
    typer.Option("--dtype", help="Number format to compute in; weights are float32."),
]
Checkpointing = Annotated[
    bool | None,
    typer.Option(
        "--gradient-checkpointing", help="Compute blocks twice: a third slower, far less memory."
    ),
]
ValFraction = Annotated[
    float | None,
    typer.Option(
        "--val-fraction",
        min=0.01,
        max=0.9,
        help="Validate on this share of each class, held back; by default 0.2, where DATA has no "
        "part for that.",
    ),
]
Flip = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", help="Mirror pictures at random; not for what has a side."),
]
RandAugment = Annotated[
    str | None,
    typer.Option(
        "--rand-augment",
        help="So many random operations on each picture, of a magnitude of 0 to 30; or none.",
        metavar="LAYERSxMAGNITUDE",
    ),
]
Mixup = Annotated[
    float | None, typer.Option("--mixup", min=0, help="Blend pictures, by Beta(P, P).", metavar="P")
]
CutMix = Annotated[
    float | None,
    typer.Option(
        "--cutmix", min=0, help="Paste boxes of other pictures, sized by Beta(P, P).", metavar="P"
    ),
]
Erasing = Annotated[
    float | None,
    typer.Option(
        "--erasing",
        min=0,
        max=1,
        help="Share of the pictures of which a box is erased.",
        metavar="SHARE",
    ),
]
BalanceOption = Annotated[
    Balance | None,
    typer.Option(
        "--balance",
        help="Make up for classes with few pictures: weight their loss, or draw them more often.",
    ),
]
LayerDecay = Annotated[
    float | None,
    typer.Option(
        "--layer-decay",
        min=0.001,
        max=1,
        help="Each layer's learning rate is this many times that of the one after it.",
        metavar="X",
    ),
]
Preview = Annotated[
    Path | None,
    typer.Option(
        "--preview",
        help="Draw the first batch as the model will see it, and leave.",
        metavar="FILE.png",
        dir_okay=False,
    ),
]
FindLr = Annotated[
    Path | None,
    typer.Option(
        "--find-lr",
        help="Try rising learning rates for up to 100 steps, draw the loss, suggest one, and "
        "leave.",
        metavar="PLOT.png",
        dir_okay=False,
    ),
]
Reports = Annotated[
    list[ReportTo] | None,
    typer.Option(
        "--report-to",
        help="tensorboard, wandb or trackio: send it the numbers of the run; once for each.",
        metavar="TRACKER",
    ),
]
SaveEvery = Annotated[
    int | None,
    typer.Option("--save-every", min=1, help="Save the state every so many steps, too."),
]
Patience = Annotated[
    int | None,
    typer.Option("--patience", min=1, help="Stop after so many epochs without a better result."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at a picture that can't be read.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in RUN.")]
ReportPage = Annotated[
    bool,
    typer.Option(
        "--report/--no-report",
        help="Write report.html in the end, by one more pass over the validation pictures.",
    ),
]
ShowRecipe = Annotated[bool, typer.Option("--show-recipe", help="Print the recipe and leave.")]
Plan = Annotated[
    bool, typer.Option("--plan", help="Measure a few steps, print memory and time, and leave.")
]


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


@dataclass(frozen=True)
class Common:
    """What `train` and `fine-tune` were told alike."""

    data: DataChoice
    out: Path | None
    recipe_name: str
    recipe: "Recipe"
    val_fraction: float | None
    strict: bool
    resume: bool
    force: bool
    plan: bool
    quiet: bool
    preview: Path | None = None
    find_lr: Path | None = None
    report_to: tuple[str, ...] = ()
    report: bool = True


def chosen_recipe(name: str, config: Path | None, **changes: object) -> "Recipe":
    """A named recipe, changed by a file and then by what the command line says."""
    from mixer_mlx.training.recipes import named

    recipe = named(name).recipe
    if config:
        recipe = recipe.with_toml(config)
    return recipe.replace(**{key: value for key, value in changes.items() if value is not None})


def show_recipe(name: str, recipe: "Recipe") -> None:
    """Print what a recipe is for, and its values as TOML, which --config reads."""
    from mixer_mlx.training.recipes import named

    print("\n".join(f"# {line}" for line in named(name).about.strip().splitlines()))
    for key, value in recipe.to_dict().items():
        if value is not None:
            text = f'"{value}"' if isinstance(value, str) else str(value)
            print(f"{key} = {text.lower() if isinstance(value, bool) else text}")
