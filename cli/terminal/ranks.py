"""A command that runs in several processes: rank 0 speaks for all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from . import output, signals

if TYPE_CHECKING:
    from mixer_mlx.runtime.ranks import Ranks


LAST_SECONDS = 10
"""A process has so long to end, once another has failed or is done."""


def refuse_several(sentence: str) -> None:
    """Raise BadParameter where a command is to run in several processes."""
    from mixer_mlx.runtime.ranks import launched_size

    if launched_size() > 1:
        raise typer.BadParameter(sentence)


@contextmanager
def joined(go_on: str) -> Iterator["Ranks"]:
    """The ranks, once all are there; a process without others is rank 0 of 1.

    `go_on` says what to do after another process ended before its time. What the block raises ends
    the other processes.
    """
    from mixer_mlx import __version__
    from mixer_mlx.runtime.ranks import ALONE, launched_size
    from mixer_mlx.runtime.ranks import joined as all_joined

    if launched_size() == 1:
        yield ALONE
        return
    me = int(os.environ["MLX_RANK"])
    if me:
        output.speak_as(me)

    def lost(rank: int, told: bool) -> None:
        if me == 0 or not told:
            output.say(f"Error: Rank {rank} ended before the work was done; {go_on}")
        signals.leave(1)

    ranks = ALONE
    try:
        with all_joined(__version__, lost) as ranks:
            yield ranks
    except BaseException as error:
        # What stops all of them need be said once.
        if me and (isinstance(error, signals.Interrupted) or ranks.first_failed()):
            output.speak_as(me, mute=True)
        # MLX's threads may wait for what the others no longer send.
        signals.leave_within(LAST_SECONDS)
        raise
