"""`--learning-curve`: whether more photos would help, before any training."""

from typing import TYPE_CHECKING

from ..terminal import output
from ..terminal.progress import progress

if TYPE_CHECKING:
    from mixer_mlx.model import MlpMixer
    from mixer_mlx.training.run import Run


def show_curve(run: "Run", model: "MlpMixer", *, quiet: bool) -> None:
    """Measure it on the frozen features, print it, and keep it for the report."""
    from mixer_mlx.analysis.enough import curve_advice, learning_curve
    from mixer_mlx.analysis.interval import with_interval
    from mixer_mlx.features.dataset import Labelled, embedded
    from mixer_mlx.features.embed import Embedder
    from mixer_mlx.training.pages import write_curve

    start = run.start
    embedder = Embedder(model, start.info)
    found: list[Labelled] = []
    for dataset in (start.train, start.val):
        with progress(not quiet, [], len(dataset)) as tick:
            found.append(embedded(dataset, embedder, batch_size=start.recipe.batch_size, tick=tick))
    curve = learning_curve(*found)
    rows = [
        {
            "training images": one.name,
            "number": one.images,
            "accuracy": with_interval(one.mean, one.tested),
        }
        for one in curve
    ]
    output.write_rows(rows, "table")
    output.write_text(curve_advice(curve))
    write_curve(run.folder, curve)
