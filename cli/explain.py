"""`mixer explain`: which parts of an image speak for a class."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.choices import DEFAULT_MODEL, ExplainMethod
from mixer_mlx.errors import ImageError

from .terminal import files, options, output

if TYPE_CHECKING:
    from mixer_mlx.analysis.explain import Explanation

TOP = 5


def explain(
    image: Annotated[Path, typer.Argument(help="An image file.", metavar="IMAGE", dir_okay=False)],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="What to write: .png (a heat map over the image), .npy (one number per patch) or "
            ".json (all numbers).",
            metavar="FILE",
            dir_okay=False,
        ),
    ],
    model: options.ModelOption = DEFAULT_MODEL,
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="Class to explain: a label, one of its synonyms, a WordNet id, or its number. "
            "Default: the most probable one.",
            metavar="NAME",
        ),
    ] = None,
    method: Annotated[
        ExplainMethod,
        typer.Option(
            "--method",
            help="rise hides random halves of the image, occlusion squares of 3 x 3 patches; "
            "gradient integrates gradients, in the fewest passes.",
        ),
    ] = "rise",
    masks: Annotated[
        int, typer.Option("--masks", min=2, help="Number of random masks of rise.", metavar="N")
    ] = 64,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed.")] = 0,
    batch_size: options.BatchSize = 32,
    format: options.FormatOption = "table",
    dtype: options.DTypeOption = None,
    device: options.DeviceOption = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Ignore EXIF orientation, as in `predict --exact`.")
    ] = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Show which parts of an image speak for a class, and score the map.

    The insertion and deletion scores measure the map: the mean probability of the class while the
    map's best patches are shown first (higher is better), or hidden first (lower is better). Beside
    them are the scores of a random order.
    """
    files.check(out, force=force, what="An explanation is .png, .npy or .json", suffixes=_SUFFIXES)
    from mixer_mlx.analysis.explain import Explainer
    from mixer_mlx.convert import load
    from mixer_mlx.labels import find_label

    with output.fetching(quiet=quiet) as listener:
        classifier = load(model, dtype=dtype, device=device, listener=listener)
    index = None if class_name is None else find_label(classifier.labels, class_name)
    explainer = Explainer(classifier, method, masks, seed, batch_size)
    try:
        found = explainer(image, index, exact=exact)
    except ImageError as error:
        raise ImageError(f"{image}: {error}") from error
    record = _record(str(image), model, found)
    _write(out, found, {**record, "map": found.map.tolist()})
    if format == "table":
        record |= {"probability": f"{found.prediction.probability:.1%}"}
    output.write_record(record, format)


_SUFFIXES = (".png", ".npy", ".json")


def _record(image: str, model: str, found: "Explanation") -> dict[str, object]:
    return {
        "image": image,
        "model": model,
        "method": found.method,
        "index": found.prediction.index,
        "label": found.prediction.label,
        "probability": found.prediction.probability,
        "insertion": round(found.scores.insertion, 4),
        "deletion": round(found.scores.deletion, 4),
        "random_insertion": round(found.random.insertion, 4),
        "random_deletion": round(found.random.deletion, 4),
    }


def _write(path: Path, found: "Explanation", record: dict[str, object]) -> None:
    import numpy as np

    from mixer_mlx.analysis.heatmap import page
    from mixer_mlx.runtime.atomic import written_file

    with written_file(path) as temporary:
        if path.suffix.lower() == ".png":
            page(found).save(temporary, "PNG")
        elif path.suffix.lower() == ".npy":
            with temporary.open("wb") as file:
                np.save(file, found.map)
        else:
            temporary.write_text(json.dumps(record) + "\n", encoding="utf-8")
