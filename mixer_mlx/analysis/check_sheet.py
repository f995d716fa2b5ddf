"""The pictures behind the findings of `check`, on one page."""

from collections.abc import Iterable, Sequence

from PIL import Image

from mixer_mlx.errors import ImageError
from mixer_mlx.images.decode import opened, rgb
from mixer_mlx.runtime.threads import THREADS, in_threads

from .check import KINDS, Finding, Scan
from .sheets import SIDE, Tile, grouped_sheet, thumbnail

MOST_DRAWN = 20
"""So many findings of a kind are drawn."""


def draw_findings(scan: Scan, findings: Iterable[Finding]) -> Image.Image | None:
    """An RGB page with the first findings of each kind; None if no picture is concerned."""
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.pictures:
            by_kind.setdefault(finding.kind, []).append(finding)
    sections = [_section(scan, kind, found) for kind, found in by_kind.items()]
    return grouped_sheet(sections) if sections else None


def _section(
    scan: Scan, kind: str, found: Sequence[Finding]
) -> tuple[str, Sequence[Sequence[Tile]]]:
    shown = (
        f"the first {MOST_DRAWN} of {len(found):,}" if len(found) > MOST_DRAWN else f"{len(found)}"
    )
    groups = in_threads(
        lambda one: [_tile(scan, i) for i in one.pictures[:10]], found[:MOST_DRAWN], THREADS
    )
    return f"{KINDS[kind].text}: {shown}", list(groups)


def _tile(scan: Scan, index: int) -> Tile:
    where = "/".join(filter(None, [scan.part_of[index], scan.class_of[index]]))
    entry = scan.entries[index]
    name = str(entry).rpartition("/")[2]
    try:
        with opened(entry, at_least=SIDE) as file:
            return Tile(thumbnail(rgb(file)), name, where)
    except ImageError:
        return Tile(None, name, where)
