"""Options that `train` and `fine-tune` share."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.cli import options

if TYPE_CHECKING:
    from mixer_mlx.training.recipe import Recipe

Data = Annotated[
    Path,
    typer.Argument(
        help="DATA/<class>/<pictures>, or DATA/train/<class>/ and DATA/val/<class>/.",
        metavar="DATA",
    ),
]
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
    float,
    typer.Option(
        "--val-fraction", min=0.01, max=0.9, help="Share of each class that is held back."
    ),
]
Flip = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", help="Mirror pictures at random; not for what has a side."),
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
ShowRecipe = Annotated[bool, typer.Option("--show-recipe", help="Print the recipe and leave.")]
Plan = Annotated[
    bool, typer.Option("--plan", help="Measure a few steps, print memory and time, and leave.")
]


@dataclass(frozen=True)
class Common:
    """What `train` and `fine-tune` were told alike."""

    data: Path
    out: Path | None
    recipe_name: str
    recipe: "Recipe"
    val_fraction: float
    strict: bool
    resume: bool
    force: bool
    plan: bool
    quiet: bool


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
