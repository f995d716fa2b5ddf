"""Ranks: the processes, on one machine or several, that MLX's launcher started for one job.

Each works on a part of the images; rank 0 alone writes. `mx.distributed` carries arrays,
`connections` all else.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixer_mlx.errors import BackendError, ConfigError, MixerError

from .documents import parse_json, read_text

if TYPE_CHECKING:
    import mlx.core as mx

    from .connections import Connections, HostPort, OnFailure

# Ports above the one that rank 0's MLX listens on.
PORT_OFFSET = 1000
INIT_SECONDS = 60


class Ranks:
    """The ranks of a job as one of them sees them; without `connections`, this process alone.

    Collective, to be called by all ranks in the same order: `all_gather`, `broadcast`, `barrier`,
    `check_same`, `all_reduce` and `broadcast_arrays`.
    """

    def __init__(self, connections: Connections | None = None, backend: str = "") -> None:
        self.rank = connections.rank if connections else 0
        self.size = connections.size if connections else 1
        self._connections = connections
        self._backend = backend

    def all_gather(self, value: Any) -> list[Any]:
        """The values (JSON) of all ranks, in order, on all ranks."""
        return self._connections.all_gather(value) if self._connections else [value]

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value (JSON) on all ranks; the others' are ignored."""
        return self.all_gather(None if self.rank else value)[0]

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.all_gather(None)

    def check_same(self, values: Mapping[str, str]) -> None:
        """Raise ConfigError, with the first key that differs, if rank 0 has other values."""
        for key, value in self.broadcast(dict(values)).items():
            if values.get(key) != value:
                raise ConfigError(
                    f"Rank {self.rank} and rank 0 differ in the {key}; give all machines the same "
                    "files and options."
                )

    def rank0_failed(self) -> bool:
        """Whether rank 0 has reported a failure of its own, or does within a second."""
        return self._connections is not None and self._connections.rank0_failed.wait(1.0)

    def rows(self, batch_size: int) -> slice:
        """This rank's rows of a batch. Raises ConfigError if not all ranks get as many."""
        count, rest = divmod(batch_size, self.size)
        if rest or not count:
            raise ConfigError(
                f"A batch of {batch_size} images can't be divided evenly among {self.size} "
                f"processes; choose a `batch_size` that is a multiple of {self.size}."
            )
        return slice(self.rank * count, (self.rank + 1) * count)

    def shard(self, count: int) -> range:
        """The indices below `count` that are this rank's: every `size`th."""
        return range(count)[self.rank :: self.size]

    def all_reduce(self, arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """The sums over all ranks, lazily, in messages of 32 MiB if all have one dtype."""
        if self.size == 1:
            return dict(arrays)
        from mlx.nn import average_gradients

        means = average_gradients(list(arrays.values()), self._group)
        return {name: mean * self.size for name, mean in zip(arrays, means, strict=True)}

    def broadcast_arrays(self, arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Rank 0's arrays on all ranks; the others give arrays of the same shapes and dtypes."""
        if self.size == 1:
            return dict(arrays)
        import mlx.core as mx

        ours = arrays if self.rank == 0 else {k: mx.zeros_like(v) for k, v in arrays.items()}
        return {k: mx.distributed.all_sum(v, group=self._group) for k, v in ours.items()}

    @cached_property
    def _group(self) -> mx.distributed.Group:
        """MLX's connections, made at the first use, which all ranks must reach together."""
        import mlx.core as mx

        self.barrier()
        with _interrupted_after(INIT_SECONDS):
            try:
                return mx.distributed.init(strict=True, backend=self._backend)
            except (RuntimeError, ValueError) as error:
                raise BackendError(
                    f"MLX could not connect rank {self.rank} to the others with {self._backend} "
                    f"({error}); see docs/distributed.md."
                ) from error


ALONE = Ranks()


def launched_size() -> int:
    """The number of ranks in the environment variables of MLX's launcher; 1 without them."""
    launch = _launch()
    return launch[1] if launch else 1


@contextmanager
def connected(version: str, on_failure: OnFailure) -> Iterator[Ranks]:
    """The ranks, once all are connected; `ALONE` if this is the only process.

    An exception in the block ends all other ranks. `on_failure` is called in a thread if another
    rank ends early, and must end this process, as its main thread may never return from MLX.
    Raises BackendError.
    """
    launch = _launch()
    if launch is None:
        yield ALONE
        return
    from .connections import GRACE_SECONDS, Connections

    rank, size, backend, address = launch
    connections = Connections(rank, size, address, version, on_failure)
    ranks = Ranks(connections, backend)
    try:
        yield ranks
        ranks.barrier()
    except BaseException as error:
        broken = isinstance(error, RuntimeError) and str(error).startswith(f"[{backend}]")
        if broken or (connections.lost and not isinstance(error, MixerError)):
            time.sleep(2 * GRACE_SECONDS)  # `on_failure` can name the rank
        connections.abort()
        if broken:
            raise BackendError(
                f"MLX lost the connection of rank {rank} to another ({error}); check whether the "
                "network is stable."
            ) from error
        raise
    connections.close()


def _launch() -> tuple[int, int, str, HostPort] | None:
    """(rank, size, backend, rank 0's address) as `mlx.launch` sets them; None for one process."""
    env = os.environ
    if "MLX_RANK" not in env:
        return None
    try:
        if "MLX_HOSTFILE" in env:
            hosts = _list(env["MLX_HOSTFILE"]) or [[]]
            size, backend, first = len(hosts), "ring", hosts[0][0] if len(hosts) > 1 else ""
        elif "MLX_IBV_DEVICES" in env:
            size, backend = len(_list(env["MLX_IBV_DEVICES"])), "jaccl"
            first = env["MLX_JACCL_COORDINATOR"]
        else:
            size, backend = int(env["MLX_WORLD_SIZE"]), "nccl"
            first = f"{env['NCCL_HOST_IP']}:{env['NCCL_PORT']}"
        if size < 2:
            return None
        return int(env["MLX_RANK"]), size, backend, _address(first)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BackendError(
            f"MLX_RANK is set, but the other variables of MLX's launcher can't be used ({error}); "
            "start with mlx.launch, or unset MLX_RANK."
        ) from error


def _list(path: str) -> list[Any]:
    text = read_text(Path(path)).strip()
    return list(parse_json(text)) if text else []


def _address(first: str) -> HostPort:
    chosen = os.environ.get("MIXER_MLX_RANK0")
    host, _, port = (chosen or first).rpartition(":")
    return host, int(port) + (0 if chosen else PORT_OFFSET)


@contextmanager
def _interrupted_after(seconds: int) -> Iterator[None]:
    """Make a system call fail after that time.

    MLX waits for ever for its neighbour to connect, and holds Python's lock meanwhile, so that no
    other thread runs; but a signal makes that call fail.
    """
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
