"""Several processes on this machine for one command: this one is rank 0 and starts the others."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

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
    from mixer_mlx import blas, parallel
    from mixer_mlx.threads import cores

    size = parallel.launched_size()
    if count > 1 and size not in (1, count):
        raise typer.BadParameter(f"mlx.launch started {size} processes; leave --processes out.")
    if count == 1 or size == count:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        hosts = Path(folder) / "hosts.json"
        hosts.write_text(json.dumps(parallel.local_hosts(count)))
        threads = max(1, cores() // count)
        before = dict(os.environ)
        os.environ |= {"MLX_HOSTFILE": str(hosts), "OPENBLAS_NUM_THREADS": str(threads)}
        others = [_start(rank) for rank in range(1, count)]
        os.environ["MLX_RANK"] = "0"
        blas.use_threads(threads)
        try:
            yield
        finally:
            _end(others)
            os.environ.clear()
            os.environ.update(before)


def _start(rank: int) -> subprocess.Popen[bytes]:
    # -P: no module is looked for in the folder that the user happens to be in.
    command = [sys.executable, "-P", "-m", "mixer_mlx.cli", *sys.argv[1:]]
    return subprocess.Popen(  # noqa: S603  # this program
        command, env={**os.environ, "MLX_RANK": str(rank)}, stdin=subprocess.DEVNULL
    )


def _end(others: list[subprocess.Popen[bytes]]) -> None:
    for other in others:
        try:
            other.wait(LAST_SECONDS)
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()
