import dataclasses
import json
from pathlib import Path

import pytest

from mixer_mlx import ConfigError
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.recipes import RECIPES, named


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optimizer", "adam"),
        ("schedule", "step"),
        ("loss", "l2"),
        ("dtype", "float64"),
        ("freeze", "head"),
        ("augmentation", "mixup"),
        ("shuffle", "rows"),
        ("batch_size", 0),
        ("batch_size", 2.0),
        ("batch_size", True),
        ("batch_fraction", 0),
        ("accumulation", 0),
        ("lr", -1),
        ("lr", float("nan")),
        ("lr", "fast"),
        ("lr", None),
        ("end_lr", float("inf")),
        ("warmup", 1.0),
        ("warmup", -1),
        ("warmup", True),
        ("weight_decay", -0.1),
        ("momentum", 1),
        ("betas", (0.9, 1.0)),
        ("betas", 0.9),
        ("betas", (0.9,)),
        ("clip_norm", 0),
        ("label_smoothing", 1),
        ("head_bias", 1e3),
        ("layer_decay", 0),
        ("layer_decay", 1.1),
        ("rand_augment", (2,)),
        ("rand_augment", (0, 15)),
        ("rand_augment", (2, 31)),
        ("rand_augment", (2, 1.5)),
        ("rand_augment", "2x15"),
        ("mixup", -0.1),
        ("mixup", None),
        ("cutmix", 101),
        ("erasing", 1.1),
        ("balance", "focal"),
        ("drop_path", 1.0),
        ("drop_path_rescale", 1),
        ("dropout", -0.1),
        ("ema_decay", 1.0),
        ("gradient_checkpointing", "yes"),
        ("unfreeze_last", -1),
        ("unfreeze_last", 1),  # without freeze
        ("patience", 0),
        ("save_every", 0),
        ("seed", -1),
        ("epochs", 0),
        ("steps", 0.5),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(field: str, value: object) -> None:
    good = {"epochs": 1} if field != "steps" else {}
    with pytest.raises(ConfigError, match=field):
        Recipe(**{**good, field: value})  # type: ignore[arg-type]


def test_every_field_is_checked() -> None:
    for field in dataclasses.fields(Recipe):
        with pytest.raises(ConfigError, match=field.name):
            Recipe(**{"epochs": 1, field.name: object()})  # type: ignore[arg-type]


@pytest.mark.parametrize("both", [{}, {"epochs": 1, "steps": 1}])
def test_epochs_or_steps(both: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="epochs or steps"):
        Recipe(**both)  # type: ignore[arg-type]
    assert Recipe(epochs=3).total_steps(7) == 21
    assert Recipe(steps=5).total_steps(7) == 5
    assert Recipe(epochs=3).replace(steps=2).epochs is None
    assert Recipe(steps=3).replace(epochs=2).steps is None


def test_the_default_seed() -> None:
    """Runs that name none are reproduced by it."""
    assert Recipe(epochs=1).seed == 0


def test_batch_size_for_a_set() -> None:
    quick = RECIPES["quick"].recipe
    assert [quick.batch_size_for(n) for n in (3, 50, 100, 5000)] == [1, 12, 25, 32]
    assert Recipe(steps=1, batch_size=128).batch_size_for(50) == 50


@pytest.mark.parametrize("name", RECIPES)
def test_named_recipes(name: str) -> None:
    recipe, about = named(name).recipe, named(name).about
    for word in ("Command   mixer ", "\nExpect    ", "\nSource    "):
        assert word in about
    values = json.loads(json.dumps(recipe.to_dict(), allow_nan=False))
    assert Recipe.from_dict(values) == recipe


def test_what_the_paper_says() -> None:
    """Table 4 and the fine-tuning paragraph of arXiv 2105.01601."""
    imagenet, tune = RECIPES["paper-imagenet"].recipe, RECIPES["paper-finetune"].recipe
    assert (imagenet.epochs, imagenet.batch_size, imagenet.warmup) == (300, 4096, 10_000)
    assert (imagenet.lr, imagenet.weight_decay, imagenet.clip_norm) == (1e-3, 0.1, 1.0)
    assert (imagenet.schedule, imagenet.drop_path, imagenet.dropout) == ("linear", 0.1, 0)
    assert (imagenet.optimizer, imagenet.betas) == ("adamw", (0.9, 0.999))
    assert (imagenet.rand_augment, imagenet.mixup) == ((2, 15), 0.5)
    large = RECIPES["paper-imagenet21k"].recipe
    assert (large.rand_augment, large.mixup) == ((2, 10), 0.2)
    assert large.replace(rand_augment=(2, 15), mixup=0.5) == imagenet
    assert (tune.optimizer, tune.momentum, tune.batch_size) == ("sgd", 0.9, 512)
    assert (tune.schedule, tune.warmup, tune.clip_norm) == ("cosine", 500, 1.0)
    assert (tune.weight_decay, tune.lr, tune.steps) == (0, 0.03, 10_000)


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match=r"'slow'.*quick, paper-finetune"):
        named("slow")
    with pytest.raises(ConfigError, match="unknown keys: learning_rate; known are epochs, steps"):
        Recipe.from_dict({"epochs": 1, "learning_rate": 1})


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('steps = 7\nlr = 1\nbetas = [0.8, 0.9]\nclip_norm = false\ndtype = "float16"\n')
    recipe = RECIPES["cifar"].recipe.with_toml(path)
    assert (recipe.steps, recipe.epochs, recipe.lr, recipe.clip_norm) == (7, None, 1, None)
    assert (recipe.betas, recipe.dtype, recipe.weight_decay) == ((0.8, 0.9), "float16", 0.05)
    path.write_text("rand_augment = false\nmixup = 0.2\n")
    recipe = RECIPES["paper-imagenet"].recipe.with_toml(path)
    assert (recipe.rand_augment, recipe.mixup) == (None, 0.2)
    assert recipe.replace(rand_augment=[3, 9]).rand_augment == (3, 9)
    assert recipe.replace(rand_augment=(3, 9)).replace(rand_augment=False).rand_augment is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = [", "a readable TOML"),
        ("lr = -1", "my.toml: lr is -1"),
        ("rate = 1", "unknown keys: rate"),
        ("lr = false", "lr is False"),
        ("epochs = 1\nsteps = 2", "epochs or steps"),
    ],
)
def test_bad_toml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Recipe(epochs=1).with_toml(path)
    with pytest.raises(ConfigError, match="a readable TOML"):
        Recipe(epochs=1).with_toml(tmp_path / "none.toml")
