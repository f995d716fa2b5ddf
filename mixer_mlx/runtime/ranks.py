"""Ranks: the processes, on one machine or several, that MLX's launcher started for one job.

Each works on its share of the images, and rank 0 speaks and writes for all. Arrays are summed by
`mx.distributed`; everything small goes through `peers`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mixer_mlx.errors import BackendError, ConfigError, MixerError

if TYPE_CHECKING:
    import mlx.core as mx

    from .peers import Address, OnLost, Peers

# As MLX's own `average_gradients`: large enough for the network, small beside the weights.
BUCKET_BYTES = 32 * 2**20
# Ports above the one that rank 0's MLX listens on.
PORT_OFFSET = 1000
INIT_SECONDS = 60


class Ranks:
    """The processes of a job as one of them sees them; without `peers` there is only this one.

    What must happen in all of them (`gather`, `share`, `total`, `same`, `sum`, `from_first`) must
    be called by all, in the same order.
    """

    def __init__(self, peers: Peers | None = None, backend: str = "") -> None:
        self.rank = peers.rank if peers else 0
        self.size = peers.size if peers else 1
        self.wish = False
        self.stop = False
        self._peers = peers
        self._backend = backend

    def gather(self, value: Any) -> list[Any] | None:
        """Each rank's value (JSON), in order, on rank 0; None on the others."""
        found: list[Any] = []
        self._meet(value, found.extend)
        return None if self.rank else found

    def share(self, value: Any) -> Any:
        """Rank 0's value (JSON), on all."""
        return self._meet(value, lambda values: values[0])

    def total(self, numbers: Sequence[float]) -> list[float]:
        """The sums over all ranks, one for each number."""
        return self._meet(list(numbers), lambda rows: [sum(row) for row in zip(*rows, strict=True)])

    def same(self, values: Mapping[str, str]) -> None:
        """Raise ConfigError unless all ranks have rank 0's values; its text names the first key."""
        for key, value in self.share(dict(values)).items():
            if values.get(key) != value:
                raise ConfigError(
                    f"Rank {self.rank} and rank 0 differ in the {key}; give all machines the same "
                    "files and options."
                )

    def agree(self, wish: bool) -> bool:
        """Whether a rank wished to stop: the same answer on all after the same training step.

        Alone, that is the wish itself; else the wishes travel with the sums of the next step.
        """
        self.wish = wish
        return self.stop if self.size > 1 else wish

    def first_failed(self) -> bool:
        """Whether rank 0 ended with an error of its own by now, or within a second."""
        return self._peers is not None and self._peers.first_failed.wait(1.0)

    def part(self, whole: int) -> slice:
        """This rank's rows of a batch. Raises ConfigError unless all get as many."""
        rows, left = divmod(whole, self.size)
        if left or not rows:
            raise ConfigError(
                f"A batch of {whole} images can't be shared evenly by {self.size} processes; "
                f"choose a batch size (-b) that is a multiple of {self.size}."
            )
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def mine(self, count: int) -> range:
        """The places, of so many, that this rank takes: every `size`th."""
        return range(count)[self.rank :: self.size]

    def sum(self, arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """The sums over all ranks, not yet computed; in few messages. All of one dtype."""
        if self.size == 1:
            return dict(arrays)
        import mlx.core as mx

        sums = {}
        for names in _buckets(arrays):
            flat = mx.concatenate([arrays[name].reshape(-1) for name in names])
            flat = mx.distributed.all_sum(flat, group=self._group)
            start = 0
            for name in names:
                end = start + arrays[name].size
                sums[name] = flat[start:end].reshape(arrays[name].shape)
                start = end
        return sums

    def from_first(self, arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Rank 0's arrays, on all; the others give some of the same shapes."""
        if self.rank == 0:
            return self.sum(arrays)
        import mlx.core as mx

        return self.sum({name: mx.zeros_like(value) for name, value in arrays.items()})

    def _meet(self, value: Any, answer: Callable[[list[Any]], Any]) -> Any:
        return self._peers.meet(value, answer) if self._peers else answer([value])

    @cached_property
    def _group(self) -> mx.distributed.Group:
        """MLX's own connections, made when first needed: all must need them at that moment."""
        import mlx.core as mx

        self.share(None)
        with _at_most(INIT_SECONDS):
            try:
                return mx.distributed.init(strict=True, backend=self._backend)
            except (RuntimeError, ValueError) as error:
                raise BackendError(
                    f"MLX could not connect rank {self.rank} to the others by {self._backend} "
                    f"({error}); see docs/distributed.md."
                ) from error


ALONE = Ranks()


def launched_size() -> int:
    """How many processes MLX's launcher, or who sets its variables, started; 1: this one alone."""
    launch = _launch()
    return launch[1] if launch else 1


@contextmanager
def joined(version: str, on_lost: OnLost) -> Iterator[Ranks]:
    """The ranks, once all are there; `ALONE` where this is the only process.

    When the block ends with an exception all the others are ended. `on_lost` is called in a
    thread, when another process ended before its time, and must end this one, whose main thread
    may never return from MLX. Raises BackendError.
    """
    launch = _launch()
    if launch is None:
        yield ALONE
        return
    from .peers import GRACE_SECONDS, Peers  # sockets and threads, for nobody alone

    rank, size, backend, address = launch
    peers = Peers(rank, size, address, version, on_lost)
    try:
        yield Ranks(peers, backend)
    except BaseException as error:
        broken = isinstance(error, RuntimeError) and str(error).startswith(f"[{backend}]")
        if broken or (peers.gone and not isinstance(error, MixerError)):
            time.sleep(2 * GRACE_SECONDS)  # `on_lost` has the better sentence
        peers.close(well=False)
        if broken:
            raise BackendError(
                f"MLX lost the connection of rank {rank} to another ({error}); see whether the "
                "network is stable."
            ) from error
        raise
    peers.meet(None, lambda _: None)
    peers.close(well=True)


def _launch() -> tuple[int, int, str, Address] | None:
    """(rank, size, backend, where rank 0 is), as `mlx.launch` says it; None for one process."""
    env = os.environ
    if "MLX_RANK" not in env:
        return None
    try:
        if "MLX_HOSTFILE" in env:
            text = _text(env["MLX_HOSTFILE"])
            hosts = json.loads(text) if text.strip() else [[]]
            size, backend, first = len(hosts), "ring", hosts[0][0] if len(hosts) > 1 else ""
        elif "MLX_IBV_DEVICES" in env:
            size, backend = len(json.loads(_text(env["MLX_IBV_DEVICES"]))), "jaccl"
            first = env["MLX_JACCL_COORDINATOR"]
        else:
            size, backend = int(env["MLX_WORLD_SIZE"]), "nccl"
            first = f"{env['NCCL_HOST_IP']}:{env['NCCL_PORT']}"
        if size < 2:
            return None
        return int(env["MLX_RANK"]), size, backend, _address(first)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BackendError(
            f"MLX_RANK is set, but what MLX's launcher sets beside it can't be used ({error}); "
            "start with mlx.launch, or unset MLX_RANK."
        ) from error


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _address(first: str) -> Address:
    chosen = os.environ.get("MIXER_MLX_RANK0")
    host, _, port = (chosen or first).rpartition(":")
    return host, int(port) + (0 if chosen else PORT_OFFSET)


def _buckets(arrays: Mapping[str, mx.array]) -> Iterator[list[str]]:
    """Names, in order, by groups of about BUCKET_BYTES."""
    names: list[str] = []
    size = 0
    for name, value in arrays.items():
        names.append(name)
        size += value.nbytes
        if size >= BUCKET_BYTES:
            yield names
            names, size = [], 0
    if names:
        yield names


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """Interrupt a system call after that time.

    MLX waits for its neighbour's connection for ever, with Python's lock held, so that no thread
    could help; but a signal makes that call fail.
    """

    def ignore(*_: object) -> None:
        pass

    before = signal.signal(signal.SIGALRM, ignore)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
