"""Messages between the processes of one job, and word of it when one of them ends.

MLX's ring waits for a dead process for ever, or fails somewhere inside a computation; so whether
all of them live is watched beside it: a star of TCP connections, rank 0 in the middle, JSON in
frames, a beat each second. A killed process is noticed by its closed connection, a machine without
power or network by its missing beats.

Like MLX's ring it is neither encrypted nor guarded: for machines that trust their network.
"""

import contextlib
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from mixer_mlx.errors import BackendError

BEAT_SECONDS = 1.0
MISSED_BEATS = 20
# A process whose neighbour ended may be about to end with a better sentence of its own.
GRACE_SECONDS = 2.0
MEETING_SECONDS = 60.0

_LENGTH = struct.Struct("!I")
_FIRST_FRAME = 1024  # bytes; whoever connects is not known yet to be one of us

Address = tuple[str, int]
OnLost = Callable[[int, bool], None]
"""(the rank that ended, whether rank 0 says so anyway): called in a thread; ends the process."""


class Peers:
    """This process's connections: rank 0's to all others, or another's to rank 0.

    Made when all processes are there. Raises BackendError for one that does not come within a
    minute, or has another version of the package.
    """

    def __init__(
        self, rank: int, size: int, address: Address, version: str, on_lost: OnLost
    ) -> None:
        self.rank, self.size = rank, size
        self._on_lost = on_lost
        self.gone = False  # another has ended without a word
        self.first_failed = threading.Event()  # rank 0 has, and said so
        self._ending = threading.Event()
        self._dying = threading.Lock()
        try:
            if rank:
                self._links = {0: _connect(rank, address, version)}
            else:
                self._links = _accept(size, address, version)
        except OSError as error:
            raise BackendError(
                f"Rank {rank} can't meet the others at {address[0]}:{address[1]} "
                f"({error.strerror or error}); choose an address of rank 0 that all can reach, "
                "and a free port, with MIXER_MLX_RANK0=HOST:PORT."
            ) from error
        threading.Thread(target=self._beat, daemon=True).start()
        for other, link in self._links.items():
            threading.Thread(target=self._read, args=(other, link), daemon=True).start()

    def meet(self, value: Any, answer: Callable[[list[Any]], Any]) -> Any:
        """`answer` to the values (JSON) of all ranks, in order: rank 0 computes it, all get it.

        Nobody leaves before all have come.
        """
        if self.rank:
            self._links[0].send("value", value)
            return self._links[0].inbox.get()
        result = answer([value, *(link.inbox.get() for _, link in sorted(self._links.items()))])
        for link in self._links.values():
            link.send("value", result)
        return result

    def close(self, *, well: bool) -> None:
        """The last word: the job is done, or if not `well` all others must end, too."""
        self._ending.set()
        for link in self._links.values():
            link.send("bye" if well else "lost", self.rank)
        if well:
            for link in self._links.values():
                link.ended.wait(GRACE_SECONDS)
                link.close()

    def _read(self, other: int, link: "_Link") -> None:
        told = False
        while (frame := link.receive(patience=MISSED_BEATS * BEAT_SECONDS)) is not None:
            kind, value = frame
            if kind == "value":
                link.inbox.put(value)
            elif kind == "bye":
                link.ended.set()
                return
            elif kind == "lost":
                other, told = value, True
                if other == 0:
                    self.first_failed.set()
                break
        self.gone |= not told
        if self._ending.wait(GRACE_SECONDS):
            return
        with self._dying:
            for one in self._links.values():
                if one is not link:
                    one.send("lost", other)
            self._on_lost(other, told)

    def _beat(self) -> None:
        while not self._ending.wait(BEAT_SECONDS):
            for link in self._links.values():
                link.send("beat")


class _Link:
    """One connection. What can't be sent is dropped: reading tells that the other is gone."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._sending = threading.Lock()
        self.inbox: SimpleQueue[Any] = SimpleQueue()
        self.ended = threading.Event()

    def send(self, kind: str, value: Any = None) -> None:
        data = json.dumps([kind, value]).encode()
        with contextlib.suppress(OSError), self._sending:
            self._connection.sendall(_LENGTH.pack(len(data)) + data)

    def close(self) -> None:
        self._connection.close()

    def receive(self, *, most: int = 2**32, patience: float) -> tuple[str, Any] | None:
        """(kind, value), or None when the other is gone or silent."""
        try:
            (length,) = _LENGTH.unpack(self._bytes(_LENGTH.size, patience))
            if length > most:
                return None
            kind, value = json.loads(self._bytes(length, patience))
        except (OSError, ValueError, TypeError):
            return None
        return kind, value

    def _bytes(self, count: int, patience: float) -> bytes:
        data = bytearray()
        # Waits are counted, not seconds: a machine that was asleep has waited once.
        waits = 0
        while len(data) < count:
            if not select.select([self._connection], [], [], BEAT_SECONDS)[0]:
                waits += 1
                if waits * BEAT_SECONDS >= patience:
                    raise TimeoutError
                continue
            waits = 0
            if not (chunk := self._connection.recv(min(2**16, count - len(data)))):
                raise ConnectionError
            data += chunk
        return bytes(data)


def _accept(size: int, address: Address, version: str) -> dict[int, _Link]:
    """Wait for ranks 1 to size - 1."""
    links: dict[int, _Link] = {}
    end = time.monotonic() + MEETING_SECONDS
    with socket.create_server(address) as server:
        while len(links) < size - 1:
            server.settimeout(max(0.01, end - time.monotonic()))
            try:
                link = _Link(server.accept()[0])
            except TimeoutError as error:
                missing = next(rank for rank in range(1, size) if rank not in links)
                raise BackendError(
                    f"Rank {missing} did not come within {MEETING_SECONDS:.0f} seconds; see what "
                    f"it says, and whether it can reach {address[0]}:{address[1]}."
                ) from error
            match link.receive(most=_FIRST_FRAME, patience=1):
                case ("hello", int(rank)) if 0 < rank < size and rank not in links:
                    links[rank] = link
                case _:
                    link.close()
    for link in links.values():
        link.send("welcome", version)
    return links


def _connect(rank: int, address: Address, version: str) -> _Link:
    """The way to rank 0, which may not be there yet."""
    end = time.monotonic() + MEETING_SECONDS
    while True:
        try:
            link = _Link(socket.create_connection(address, timeout=5))
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
    link.send("hello", rank)
    match link.receive(patience=MEETING_SECONDS + 5):
        case ("welcome", str(theirs)):
            if theirs == version:
                return link
            link.close()
            raise BackendError(
                f"Rank 0 has mixer-mlx {theirs} and rank {rank} has {version}; install the same "
                "version on all machines."
            )
    raise BackendError(f"Rank 0 ended before rank {rank} had met it; see what it says.")
