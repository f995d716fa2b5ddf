"""A command that runs in several processes, of which rank 0 writes the output."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from . import output, signals

if TYPE_CHECKING:
    from mixer_mlx.runtime.ranks import Ranks

EXIT_SECONDS = 10
"""How long a process may take to exit after a failure."""


def refuse_several(message: str) -> None:
    """Raise BadParameter if the launcher started several processes."""
    from mixer_mlx.runtime.ranks import launched_size

    if launched_size() > 1:
        raise typer.BadParameter(message)


@contextmanager
def joined(advice: str) -> Iterator["Ranks"]:
    """The ranks, once all are connected; a single process is rank 0 of 1.

    `advice` is the next step after another rank ended early. An exception in the block ends all
    ranks, and is reported once if all have it.
    """
    from mixer_mlx import __version__
    from mixer_mlx.runtime.ranks import ALONE, connected, launched_size

    if launched_size() == 1:
        yield ALONE
        return
    rank = int(os.environ["MLX_RANK"])
    if rank:
        output.speak_as(rank)

    def on_failure(failed: int, reported: bool) -> None:
        if rank == 0 or not reported:
            output.say(f"Error: Rank {failed} ended before the work was done; {advice}")
        signals.leave(1)

    ranks = ALONE
    try:
        with connected(__version__, on_failure) as ranks:
            yield ranks
    except BaseException as error:
        if rank and (isinstance(error, signals.Interrupted) or ranks.rank0_failed()):
            output.speak_as(rank, mute=True)
        # MLX's threads may still wait for data from the other ranks.
        signals.leave_within(EXIT_SECONDS)
        raise
