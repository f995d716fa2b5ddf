"""`mixer few-shot`: how well a linear classifier on features does with a few examples."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.choices import DEFAULT_MODEL
from mixer_mlx.errors import ConfigError

from .terminal import files, options, output
from .terminal.progress import progress
from .terminal.ranks import refuse_several

if TYPE_CHECKING:
    from mixer_mlx.data.read import Dataset, Entry
    from mixer_mlx.errors import ImageError
    from mixer_mlx.features.dataset import Labelled
    from mixer_mlx.features.embed import Embedder
    from mixer_mlx.features.few_shot import ShotResult


@dataclass(frozen=True)
class FewShotOptions:
    """Each field is an option."""

    data: options.DataArgument
    model: options.ModelOption = DEFAULT_MODEL
    shots: Annotated[
        str | None,
        typer.Option(
            "--shots",
            help="Training images of each class, e.g. 1,5,10; all means all of them. Default: "
            "1,5,10,25, up to the number of images.",
            metavar="N,N,...",
        ),
    ] = None
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="How often training images are drawn.")
    ] = 3
    l2: Annotated[
        float, typer.Option("--l2", help="Weight of the penalty on the squared weights.")
    ] = 1024
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            help="Take the features from this file, made by mixer embed, and not from the model.",
            metavar="FILE.npz",
            dir_okay=False,
        ),
    ] = None
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            help="Write the model with the classifier of the most shots as its head.",
            metavar="OUT",
        ),
    ] = None
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw accuracy by shots.", metavar="FILE.png", dir_okay=False),
    ] = None
    batch_size: options.BatchSize = 32
    workers: options.Workers = None
    train_split: options.TrainSplit = None
    val_split: options.ValSplit = None
    val_fraction: Annotated[
        float | None,
        typer.Option(
            "--val-fraction", help="Fraction of each class to measure on; default 0.2 if needed."
        ),
    ] = None
    image_column: options.ImageColumn = None
    label_column: options.LabelColumn = None
    format: options.FormatOption = "table"
    force: options.Force = False
    dtype: options.DTypeOption = None
    device: options.DeviceOption = None
    quiet: options.Quiet = False

    def check(self) -> None:
        """Raises MixerError for what can be known to fail before a model is loaded."""
        from mixer_mlx.checkpoint import check_target

        if self.save:
            check_target(self.save, force=self.force)
        if self.plot:
            files.check(self.plot, force=self.force, what="A plot is a PNG", suffixes=(".png",))

    def counts(self) -> "tuple[int | None, ...] | None":
        """What --shots says, ascending; None stands for all. Raises BadParameter."""
        if self.shots is None:
            return None
        parts = [part.strip().lower() for part in self.shots.split(",")]
        if not all(re.fullmatch("all|[1-9][0-9]{0,6}", part) for part in parts):
            raise typer.BadParameter(
                f"Expected numbers of images like 1,5,10, or all, not {self.shots!r}."
            )
        numbers = sorted({int(part) for part in parts if part != "all"})
        return (*numbers, *([None] if "all" in parts else []))


@options.with_options(FewShotOptions)
def few_shot(asked: FewShotOptions) -> None:
    """Measure how well a few images of each class suffice.

    Fits a linear classifier on the model's features, in closed form, as the paper's few-shot
    evaluation does, and measures it on the validation images. Images that can't be read are
    reported and skipped; the exit code is then 1.
    """
    refuse_several("mixer few-shot works in a single process only.")
    counts = asked.counts()
    asked.check()
    from mixer_mlx.features.few_shot import few_shot

    datasets = options.read_splits(
        asked.data,
        asked.train_split,
        asked.val_split,
        asked.image_column,
        asked.label_column,
        val_fraction=asked.val_fraction,
        seed=0,
        quiet=asked.quiet,
    )
    embedder = _load(asked) if asked.save or not asked.features else None
    train, test = _features(asked, datasets, embedder)
    shots = counts or _possible(train)
    results = few_shot(train, test, shots, seeds=asked.seeds, l2=asked.l2)
    output.write_rows([_row(one, asked) for one in results], asked.format)
    if asked.plot:
        _plot(asked.plot, asked.model, results)
    if asked.save and embedder:
        _save(asked.save, embedder, train, shots[-1], asked)
    found = sum(len(one.dataset) for one in (train, test))
    if unreadable := found - len(train.indices) - len(test.indices):
        output.say(f"{unreadable} of {found} images can't be read.")
        raise typer.Exit(1)


def _load(asked: FewShotOptions) -> "Embedder":
    from mixer_mlx.convert import load_embedder
    from mixer_mlx.features.embed import Features

    with output.fetching(quiet=asked.quiet) as listener:
        return load_embedder(
            asked.model, Features(), dtype=asked.dtype, device=asked.device, listener=listener
        )


def _features(
    asked: FewShotOptions, datasets: "Sequence[Dataset]", embedder: "Embedder | None"
) -> "list[Labelled]":
    from mixer_mlx.features.dataset import looked_up
    from mixer_mlx.features.store import read

    if asked.features:
        vectors = read(asked.features)
        if embedder:
            vectors.check_model(embedder, asked.features)
            if vectors.origin and vectors.origin.normalize:
                raise ConfigError(
                    f"{asked.features} has normalised features, and --save needs those that the "
                    "head sees; make it again without --normalize."
                )
        return [looked_up(dataset, vectors, asked.features) for dataset in datasets]
    if embedder is None:
        raise ConfigError("Expected a model or a file of features.")
    return [_embedded(asked, dataset, embedder) for dataset in datasets]


def _embedded(asked: FewShotOptions, dataset: "Dataset", embedder: "Embedder") -> "Labelled":
    from mixer_mlx.features.dataset import embedded

    with progress(not asked.quiet, [], len(dataset)) as tick:
        return embedded(
            dataset,
            embedder,
            batch_size=asked.batch_size,
            on_unreadable=_say_bad,
            tick=tick,
        )


def _say_bad(path: "Entry", error: "ImageError") -> None:
    output.say(f"{path}: {error}")


def _possible(train: "Labelled") -> "tuple[int | None, ...]":
    """The default numbers of shots, of which the smallest class has that many."""
    import numpy as np

    from mixer_mlx.features.few_shot import DEFAULT_SHOTS

    least = np.bincount(train.labels, minlength=len(train.dataset.classes)).min()
    return tuple(count for count in DEFAULT_SHOTS if count <= least) or DEFAULT_SHOTS[:1]


def _row(one: "ShotResult", asked: FewShotOptions) -> dict[str, object]:
    from mixer_mlx.analysis.interval import wilson, with_interval

    row: dict[str, object] = {"shots": one.shots or "all", "images": one.images}
    if asked.format == "table":
        spread = f"{one.spread:.1%}" if len(one.accuracies) > 1 else ""
        accuracy = with_interval(one.mean, one.tested)
        return row | {"accuracy": accuracy, "spread": spread, "l2": f"{asked.l2:g}"}
    low, high = wilson(one.mean * one.tested, one.tested)
    row |= {"accuracy": one.mean, "accuracy_low": low, "accuracy_high": high}
    row |= {"spread": one.spread, "l2": asked.l2}
    return row | ({"accuracies": list(one.accuracies)} if asked.format == "json" else {})


def _plot(path: Path, model: str, results: "list[ShotResult]") -> None:
    from mixer_mlx.analysis.curves import draw_panels, shots_panel
    from mixer_mlx.runtime.atomic import written_file

    with written_file(path) as temporary:
        draw_panels([shots_panel(model, results)]).save(temporary, "PNG")


def _save(
    path: Path,
    embedder: "Embedder",
    train: "Labelled",
    shots: int | None,
    asked: FewShotOptions,
) -> None:
    from mixer_mlx import checkpoint
    from mixer_mlx.features.few_shot import classifier_from, with_head

    head = classifier_from(train, shots, l2=asked.l2)
    model, info = with_head(embedder.model, embedder.info, head, train.dataset.classes)
    checkpoint.save(path, model, info, force=asked.force)
    if not asked.quiet:
        output.say_written(path, info.config)
