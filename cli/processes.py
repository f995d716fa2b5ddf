"""Several processes on this machine for one command: this one is rank 0 and starts the others."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer_mlx.errors import BackendError

if TYPE_CHECKING:
    from subprocess import Popen

Processes = Annotated[
    int,
    typer.Option(
        "--processes",
        min=1,
        help="Share the work among so many processes of this machine: on a CPU of few cores, "
        "one for each is fastest.",
        metavar="N",
    ),
]

LAST_SECONDS = 10
"""A process has so long to end, once another has failed or is done."""


def refuse_several(count: int, sentence: str) -> None:
    """Raise BadParameter where a command is to run in several processes."""
    from mixer_mlx import parallel

    if max(count, parallel.launched_size()) > 1:
        raise typer.BadParameter(sentence)


@contextmanager
def started(count: int) -> Iterator[None]:
    """Inside, this process and `count` - 1 others are ranks, as MLX's launcher would start them.

    They run the command line of this one, and share the cores that it may use.
    """
    from mixer_mlx import parallel

    size = parallel.launched_size()
    if count in (1, size):
        yield
        return
    if size > 1:
        raise typer.BadParameter(f"mlx.launch started {size} processes; leave --processes out.")
    import tempfile

    from mixer_mlx import blas
    from mixer_mlx.threads import cores

    with tempfile.TemporaryDirectory() as folder:
        hosts = Path(folder) / "hosts.json"
        hosts.write_text(json.dumps(local_hosts(count)))
        before = dict(os.environ)
        if "OPENBLAS_NUM_THREADS" not in before:
            threads = max(1, cores() // count)
            os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
            blas.use_threads(threads)
        os.environ["MLX_HOSTFILE"] = str(hosts)
        others = [_start(rank) for rank in range(1, count)]
        os.environ["MLX_RANK"] = "0"
        try:
            yield
        finally:
            _end(others)
            os.environ.clear()
            os.environ.update(before)


def local_hosts(size: int) -> list[list[str]]:
    """The content of a hostfile for a ring of processes on this machine, whose ports are free.

    Raises BackendError where none are.
    """
    import random
    import socket

    from mixer_mlx import parallel

    for port in random.sample(range(20000, 30000), 100):
        try:
            for one in (*range(port, port + size), port + parallel.PORT_OFFSET):
                socket.create_server(("127.0.0.1", one)).close()
        except OSError:
            continue
        return [[f"127.0.0.1:{port + rank}"] for rank in range(size)]
    raise BackendError(f"There are no {size + 1} free ports on 127.0.0.1 to connect processes by.")


def _start(rank: int) -> "Popen[bytes]":
    import subprocess

    # -P: no module is looked for in the folder that the user happens to be in.
    command = [sys.executable, "-P", "-m", "mixer_mlx.cli", *sys.argv[1:]]
    return subprocess.Popen(  # noqa: S603  # this program
        command, env={**os.environ, "MLX_RANK": str(rank)}, stdin=subprocess.DEVNULL
    )


def _end(others: "list[Popen[bytes]]") -> None:
    from subprocess import TimeoutExpired

    for other in others:
        try:
            other.wait(LAST_SECONDS)
        except TimeoutExpired:
            other.kill()
            other.wait()
