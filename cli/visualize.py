"""`mixer visualize`: a model's units as images."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.choices import DEFAULT_MODEL

from .terminal import files, options, output

if TYPE_CHECKING:
    from mixer_mlx.analysis.filters import Filters


def visualize(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the PNG sheets.", file_okay=False)
    ],
    model: options.ModelArgument = DEFAULT_MODEL,
    block: Annotated[
        str | None,
        typer.Option(
            "--block",
            help="Blocks whose token mixing is drawn, e.g. 0,1,2, or all. Default: the first 3.",
            metavar="N,N,...",
        ),
    ] = None,
    format: options.FormatOption = "table",
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw a model's units: the stem's filters, and the token-mixing matrices as images.

    Hidden units of token mixing are ordered as in the paper: low frequencies first, each followed
    by the unit nearest to its negative.
    """
    blocks = _parse(block)
    from mixer_mlx.analysis.filters import filters_of, sheet
    from mixer_mlx.convert import open_model
    from mixer_mlx.runtime.atomic import written_file

    with output.fetching(quiet=quiet) as listener:
        loaded = open_model(model, dtype="float32", listener=listener)
    drawn = filters_of(loaded.model, blocks)
    paths = files.in_folder(out, [f"{filters.layer}.png" for filters in drawn], force=force)
    for path, filters in zip(paths, drawn, strict=True):
        with written_file(path) as temporary:
            sheet(filters).save(temporary, "PNG")
    rows = list(map(_row, paths, drawn))
    if format == "table":
        rows = [{key: row[key] for key in ("file", "units", "shape", "scale")} for row in rows]
    output.write_rows(rows, format)


def _row(path: Path, filters: "Filters") -> dict[str, object]:
    return {
        "file": str(path),
        "layer": filters.layer,
        "units": len(filters.images),
        "shape": list(filters.images.shape[1:]),
        "scale": round(filters.scale, 4),
        "order": filters.units.tolist(),
        "caption": filters.caption,
    }


def _parse(text: str | None) -> list[int] | str:
    """ "0,2" -> [0, 2]; "all", and "first" for None."""
    if text is None or text == "all":
        return text or "first"
    if not re.fullmatch(r"[0-9]{1,4}(,[0-9]{1,4})*", text):
        raise typer.BadParameter(f"Expected numbers of blocks, e.g. 0,1,2, or all, not {text!r}.")
    return list(dict.fromkeys(map(int, text.split(","))))
