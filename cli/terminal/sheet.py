"""`--sheet`: contact sheets of predictions."""

import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from mixer_mlx.runtime.atomic import written_file

from . import files

if TYPE_CHECKING:
    from mixer_mlx import Result
    from mixer_mlx.analysis.sheets import Tile

PAGE = 100


class Sheet:
    """Collects results and writes FILE.png, FILE-2.png, ... with PAGE images each."""

    def __init__(self, path: Path):
        self._path = path
        self._page = itertools.count(1)
        self._results: list[Result] = []

    def add(self, result: "Result") -> None:
        """Add an image; a full page is written."""
        self._results.append(result)
        if len(self._results) == PAGE:
            self._write()

    def finish(self) -> None:
        """Write the last page."""
        if self._results:
            self._write()

    def _write(self) -> None:
        from mixer_mlx.analysis.sheets import contact_sheet

        with ThreadPoolExecutor() as pool:
            tiles = list(pool.map(_tile, self._results))
        self._results.clear()
        path = _page_path(self._path, next(self._page))
        with written_file(path) as temporary:
            contact_sheet(tiles).save(temporary, "PNG")


def check(path: Path, *, force: bool) -> None:
    """Raises MixerError for a sheet that can't be written or may not be overwritten."""
    files.check(path, force=force, what="A sheet is a PNG", suffixes=(".png",))
    pages = re.compile(re.escape(path.stem) + r"-\d+" + re.escape(path.suffix))
    for other in path.parent.iterdir():
        if pages.fullmatch(other.name):
            files.check_free(other, force=force)


def _page_path(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_stem(f"{path.stem}-{number}")


def _tile(result: "Result") -> "Tile":
    from mixer_mlx.analysis.sheets import Tile
    from mixer_mlx.images.thumbnail import open_thumbnail

    name = Path(str(result.image)).name
    image = open_thumbnail(result.image)
    if image is None:
        return Tile(None, name, "can't be read")
    if result.error is not None or not result.predictions:
        return Tile(image, name, None)
    best = result.predictions[0]
    return Tile(image, name, best.label, best.probability)
