"""Messages between the ranks of a job, and notice when one of them ends.

MLX's collectives can't replace this: they carry arrays only, and wait for ever for a rank whose
machine lost power, during which Python handles no signal, not even the launcher's SIGTERM. Hence a
star of TCP connections, with rank 0 at the centre: JSON, one message per line, with a heartbeat
each second. A killed process is noticed by its closed connection, a silent machine by its missing
heartbeats.

Like MLX's ring, the connections are neither encrypted nor authenticated: use a trusted network.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from mixer_mlx.errors import BackendError

from .documents import parse_json

HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 20.0
# A rank that lost another may be about to end with a more helpful error of its own.
GRACE_SECONDS = 2.0
CONNECT_SECONDS = 60.0

_HELLO_BYTES = 1024  # whoever connects may not be a rank

HostPort = tuple[str, int]
OnFailure = Callable[[int, bool], None]
"""Called in a thread with the failed rank, and whether another rank reported the failure first;
must end the process."""


class Connections:
    """Rank 0's connections to all others, or another rank's to rank 0.

    Waits until all ranks are connected. Raises BackendError if one isn't within a minute, or has
    another version of the package.
    """

    def __init__(
        self, rank: int, size: int, address: HostPort, version: str, on_failure: OnFailure
    ) -> None:
        self.rank, self.size = rank, size
        self._on_failure = on_failure
        self.lost = False  # a rank ended without reporting a failure
        self.rank0_failed = threading.Event()  # it reported a failure
        self._closing = threading.Event()
        self._failing = threading.Lock()
        try:
            if rank:
                self._links = {0: _connect(rank, address, version)}
            else:
                self._links = _accept(size, address, version)
        except OSError as error:
            raise BackendError(
                f"Rank {rank} can't connect to the others through {address[0]}:{address[1]} "
                f"({error.strerror or error}); set MIXER_MLX_RANK0=HOST:PORT to an address of rank "
                "0 that all machines can reach, and a free port."
            ) from error
        self._readers = [
            threading.Thread(target=self._read, args=item, daemon=True)
            for item in self._links.items()
        ]
        for thread in (*self._readers, threading.Thread(target=self._beat, daemon=True)):
            thread.start()

    def all_gather(self, value: Any) -> list[Any]:
        """The values (JSON) of all ranks, in order, on all ranks."""
        values: list[Any]
        if self.rank:
            self._links[0].send("value", value)
            values = self._links[0].inbox.get()
        else:
            values = [value, *(self._links[rank].inbox.get() for rank in range(1, self.size))]
            for link in self._links.values():
                link.send("value", values)
        return values

    def close(self) -> None:
        """Leave, once all ranks are done."""
        self._closing.set()
        for link in self._links.values():
            link.end()
        for reader in self._readers:
            reader.join(GRACE_SECONDS)

    def abort(self) -> None:
        """Leave, and end all other ranks, too."""
        for link in self._links.values():
            link.send("failed", self.rank)
        self._closing.set()

    def _read(self, other: int, link: "_Link") -> None:
        reported = False
        while not reported and (message := link.receive(SILENCE_SECONDS)):
            kind, value = message
            if kind == "value":
                link.inbox.put(value)
            elif kind == "failed":
                other, reported = value, True
        if not reported:
            self.lost = True
        elif other == 0:
            self.rank0_failed.set()
        if not self._closing.wait(GRACE_SECONDS):
            with self._failing:
                for one in self._links.values():
                    one.send("failed", other)
                self._on_failure(other, reported)
        link.close()

    def _beat(self) -> None:
        while not self._closing.wait(HEARTBEAT_SECONDS):
            for link in self._links.values():
                link.send("heartbeat")


class _Link:
    """One connection. Errors in sending are ignored: reading notices that the other is gone."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._sending = threading.Lock()
        self.inbox: SimpleQueue[Any] = SimpleQueue()

    def send(self, kind: str, value: Any = None) -> None:
        line = json.dumps([kind, value]).encode() + b"\n"
        with contextlib.suppress(OSError), self._sending:
            self._connection.sendall(line)

    def receive(self, patience: float, limit: int = -1) -> tuple[str, Any] | None:
        """(kind, value), or None if the other is gone, or silent for `patience` seconds."""
        try:
            self._connection.settimeout(patience)
            kind, value = parse_json(self._lines.readline(limit), nan=True)
        except (OSError, ValueError, TypeError):
            return None
        return kind, value

    def end(self) -> None:
        """Send no more. Closing at once could lose what the other has not read yet."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._lines.close()
        with self._sending:  # else a message could go to another file of the same number
            self._connection.close()


def _accept(size: int, address: HostPort, version: str) -> dict[int, _Link]:
    """Wait for ranks 1 to size - 1."""
    links: dict[int, _Link] = {}
    end = time.monotonic() + CONNECT_SECONDS
    with socket.create_server(address) as server:
        while len(links) < size - 1:
            server.settimeout(max(0.01, end - time.monotonic()))
            try:
                link = _Link(server.accept()[0])
            except TimeoutError as error:
                missing = next(rank for rank in range(1, size) if rank not in links)
                raise BackendError(
                    f"Rank {missing} did not connect within {CONNECT_SECONDS:.0f} seconds; see "
                    f"its messages, and check that it can reach {address[0]}:{address[1]}."
                ) from error
            match link.receive(1, _HELLO_BYTES):
                case ("hello", int(rank)) if 0 < rank < size and rank not in links:
                    links[rank] = link
                case _:
                    link.close()
    for link in links.values():
        link.send("welcome", version)
    return links


def _connect(rank: int, address: HostPort, version: str) -> _Link:
    """A connection to rank 0, which may start later than this rank."""
    end = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            link = _Link(socket.create_connection(address, timeout=5))
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
    link.send("hello", rank)
    match link.receive(CONNECT_SECONDS + 5):
        case ("welcome", str(theirs)):
            if theirs == version:
                return link
            link.close()
            raise BackendError(
                f"Rank 0 has mixer-mlx {theirs} and rank {rank} has {version}; install the same "
                "version on all machines."
            )
    raise BackendError(f"Rank 0 ended before rank {rank} was connected; see its messages.")
