"""How far a long run is, on stderr, where that is a terminal."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

Names = Sequence[str | os.PathLike[str]]
Tick = Callable[[int, int], None]
"""Takes how many images are done, and how many of these failed."""


@contextmanager
def progress(shown: bool, images: Names, total: int | None = None) -> Iterator[Tick]:
    """A bar with images done and failed, images per second and the time left.

    Unless `total` says how many there will be, they are counted beside the work, if `images` are
    folders and images.
    """
    if not shown or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.progress import TimeRemainingColumn as Left
    from rich.text import Text

    class Count(ProgressColumn):
        def render(self, task: "Task") -> Text:
            total = "" if task.total is None else f" of {task.total:,.0f}"
            failed = f", {task.fields['failed']:,} failed" if task.fields["failed"] else ""
            return Text(f"{task.completed:,.0f}{total} images{failed}", no_wrap=True)

    class Speed(ProgressColumn):
        def render(self, task: "Task") -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} images/s")

    columns = (BarColumn(20), Count(), Speed(), Left(), TextColumn("left"))
    # stdout may be a pipe or a file: what goes there is none of the bar's business.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bars:
        bar = bars.add_task("", total=total, failed=0)
        if total is None:
            _count_beside(images, lambda total: bars.update(bar, total=total))
        yield lambda count, failed: bars.update(bar, completed=count, failed=failed)


def _count_beside(images: Names, tell: Callable[[int], None]) -> None:
    from mixer_mlx.images.find import SUFFIXES, find_images

    if all(path.is_dir() or path.suffix.lower() in SUFFIXES for path in map(Path, images)):
        count = threading.Thread(
            target=lambda: tell(sum(1 for _ in find_images(images))), daemon=True
        )
        count.start()
