"""Progress of a long job, on stderr if that is a terminal."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

Names = Sequence[str | os.PathLike[str]]
Tick = Callable[[int, int], None]
"""Takes the number of images done, and of those that failed."""

_RATE_SECONDS, _RATE_IMAGES = 2, 20
"""A rate is shown from then on; before, it would describe the start, not the job."""


class Bar(Protocol):
    """Shows `done` of `total` (None: unknown, or unchanged), and a text."""

    def __call__(self, done: int, text: str = "", total: int | None = None) -> None: ...


@contextmanager
def bar(*, quiet: bool, total: int | None = None, keep: bool = False) -> Iterator[Bar]:
    """A bar, a text and the time left; `keep` leaves it on the screen at the end."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, text="", total=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining
    from rich.text import Text

    class Left(ProgressColumn):
        def render(self, task: "Task") -> Text:
            if task.finished or task.time_remaining is None:
                return Text("")
            return Text(f" {Remaining().render(task)} left")

    # The terminal's own colours, which its owner can read; rich's are made for black.
    filled = BarColumn(20, "dim", "green", "green", "green")
    columns = (filled, TextColumn("{task.description}", markup=False), Left())
    # The bar must not touch stdout, which may be a pipe or a file.
    console = Console(stderr=True)
    with Progress(*columns, console=console, redirect_stdout=False, transient=not keep) as bars:
        task = bars.add_task("", total=total)

        def show(done: int, text: str = "", total: int | None = None) -> None:
            bars.update(task, completed=done, description=text)
            if total is not None:
                bars.update(task, total=total)

        yield show


@contextmanager
def progress(shown: bool, images: Names, total: int | None = None) -> Iterator[Tick]:
    """A bar with images done and failed, images per second and the time left.

    Without a `total` the images are counted during the work, if all are files and folders.
    """
    counted = [total]
    start = time.monotonic()
    with bar(quiet=not shown, total=total, keep=True) as show:
        if total is None and shown and sys.stderr.isatty():
            _count_beside(images, counted)

        def tick(done: int, failed: int) -> None:
            show(done, _text(done, failed, counted[0], time.monotonic() - start), counted[0])

        yield tick


def _text(done: int, failed: int, total: int | None, seconds: float) -> str:
    text = f"{done:,}{'' if total is None else f' of {total:,}'} images"
    if failed:
        text += f", {failed:,} failed"
    if seconds >= _RATE_SECONDS and done >= _RATE_IMAGES:
        text += f"  {done / seconds:,.0f} images/s"
    return text


def _count_beside(images: Names, counted: list[int | None]) -> None:
    """Put the number of images into `counted`, in a thread."""
    from mixer_mlx.images.find import SUFFIXES, find_images

    def count() -> None:
        counted[0] = sum(1 for _ in find_images(images))

    if all(path.is_dir() or path.suffix.lower() in SUFFIXES for path in map(Path, images)):
        threading.Thread(target=count, daemon=True).start()
