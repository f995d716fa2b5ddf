"""`--folds`: a run for each fold, a table of them, and a model trained on all images."""

from collections.abc import Callable
from dataclasses import replace
from statistics import mean, stdev
from typing import TYPE_CHECKING

import typer

from ..terminal import output
from ..terminal.ranks import refuse_several
from . import run
from .options import TrainingOptions, show_recipe
from .run import Build, Prepared
from .split import Splitter

if TYPE_CHECKING:
    from mixer_mlx.data.read import Dataset
    from mixer_mlx.training.folds import Folds
    from mixer_mlx.training.recipe import Recipe
    from mixer_mlx.training.run import Run

Make = Callable[["Dataset", "Dataset"], Prepared]
"""(training images, validation images) -> the run on them."""


def train(
    command: str, asked: TrainingOptions, recipe: "Recipe", build: Build, origin: str
) -> None:
    """Cross-validate the model of `build` on the images in `asked.data`."""
    if asked.show_recipe:
        show_recipe(asked.recipe, recipe)
        return
    asked.check_usage()
    _check_usage(asked)
    refuse_several("--folds works in a single process only.")
    run.check(asked)
    from mixer_mlx.runtime.ranks import ALONE
    from mixer_mlx.training.folds import Folds

    splitter = Splitter(asked, ALONE)
    asked.datasets(recipe.seed, splitter)
    splitter.say()
    whole = splitter.dataset
    if not asked.quiet:
        run.say_classes(whole, recipe)

    def make(train: "Dataset", val: "Dataset") -> Prepared:
        return run.prepared(command, asked, recipe, build, origin, (train, val), ALONE)

    last = make(whole, whole.take([]))
    start = replace(last.start, part=splitter.part, folds=asked.folds)
    folder = asked.out or run.free_folder(asked.data)
    folds = Folds(folder, start, report=asked.report, calibrate=asked.calibrate)
    with folds.locked():
        _cross_validate(folds, asked, last, make)


def _check_usage(asked: TrainingOptions) -> None:
    if asked.is_dry_run:
        raise typer.BadParameter("--plan, --preview and --find-lr look at one run; omit --folds.")
    if asked.val_split or asked.val_fraction:
        raise typer.BadParameter(
            "--folds validates on every training image; omit --val-split and --val-fraction."
        )


def _cross_validate(folds: "Folds", asked: TrainingOptions, last: Prepared, make: Make) -> None:
    """Run all folds and the last model, or what is missing of them."""
    from mixer_mlx.runtime.ranks import ALONE
    from mixer_mlx.training.run import has_state

    if asked.resume and has_state(folds.folder):
        folds.check_start()
        if folds.complete():
            run.say_finished(folds)
            return
    else:
        folds.begin(force=asked.force or asked.resume)
        if not (asked.out or asked.quiet):
            output.say(f"The run goes to {folds.folder} (-o).")
    for number in folds.numbers:
        if not folds.is_judged(number):
            if not asked.quiet:
                output.say(f"Fold {number} of {asked.folds}.")
            made = make(*folds.datasets(number))
            fold = folds.fold(number, made.start)
            run.run_locked(fold, _for(fold, asked), made, ALONE)
            folds.judge(number, fold, made.model)
    _run_last(folds, asked, last)
    output.write_rows(_rows(folds), "table")
    if not asked.quiet:
        output.say(f"Wrote {folds.folder}: a model trained on all images.")
        run.say_next(folds)


def _for(one: "Run", asked: TrainingOptions) -> TrainingOptions:
    """The options of a part of the work, which begins anew if nothing of it is saved."""
    from mixer_mlx.training.run import has_state

    resume = asked.resume and has_state(one.folder)
    return replace(asked, out=one.folder, resume=resume, force=True, report_to=None)


def _run_last(folds: "Folds", asked: TrainingOptions, last: Prepared) -> None:
    """Train on all images, as long as the folds' best took."""
    from mixer_mlx.runtime.ranks import ALONE

    steps = folds.steps(len(last.batches))
    if not asked.quiet:
        output.say(
            f"Training on all images, for as long as the median fold's best: {steps:,} steps."
        )
    if not steps:
        run.start_head(last, quiet=asked.quiet)
        folds.finish_untrained(last.model)
        return
    recipe = last.start.recipe.replace(steps=steps, patience=False)
    made = replace(last, start=replace(last.start, recipe=recipe))
    state = folds.resumed(made.model) if asked.resume else None
    run.fit_run(folds, asked, made, state, ALONE)


def _rows(folds: "Folds") -> list[dict[str, object]]:
    """A row for each fold, their mean, and all images together."""
    from mixer_mlx.analysis.interval import with_interval

    found = folds.results()
    rows: list[dict[str, object]] = [
        {
            "fold": one.number,
            "trained on": f"{one.trained_on:,}",
            "validated on": f"{one.best.metrics['images']:,}",
            "best": one.best.where,
            "accuracy": one.best.accuracy,
        }
        for one in found
    ]
    blank: dict[str, object] = dict.fromkeys(rows[0], "")
    top1 = [one.best.metrics["top1"] for one in found]
    spread = f"{mean(top1):.1%} ± {100 * stdev(top1):.1f}"
    pooled = folds.metrics
    everything = {
        "validated on": f"{pooled.images:,}",
        "accuracy": with_interval(pooled.top1, pooled.images),
    }
    return [
        *rows,
        blank | {"fold": "mean", "accuracy": spread},
        blank | {"fold": "all"} | everything,
    ]
