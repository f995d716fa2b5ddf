"""The server: a socket on loopback, the guard, and the page's address on stdout."""

import ipaddress
import os
import socket
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from mixer_mlx.errors import ConfigError, MixerError

from ..terminal import output

if TYPE_CHECKING:
    import uvicorn

    from .guard import Guard
    from .routes import Site

DEFAULT_PORT = 8417
LOOPBACK = "127.0.0.1"
MAX_CONNECTIONS = 64


def check_installed() -> None:
    """Raise MixerError without the extra."""
    try:
        import starlette.applications  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MixerError(
            "The page needs the extra `serve`: pip install 'mixer-mlx[serve]'."
        ) from error


def check_host(host: str, *, known: bool) -> None:
    """Raise ConfigError for a host that others reach too, unless the user knows."""
    if host in (LOOPBACK, "localhost"):
        return
    if not known:
        raise ConfigError(
            f"{host} can be reached from other machines: whoever sees the address with its token "
            "could send images, read and change the folder, and start trainings, without "
            "encryption. If that is what you want, add --i-know."
        )
    if _is_any(host):
        raise ConfigError(f"{host} stands for all addresses; name the one to open in the browser.")


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket; without a port the usual one, or a free one. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in [DEFAULT_PORT, 0] if port is None else [port]:
        try:
            listening = socket.create_server((host, number), family=family)
            # asyncio switches Nagle's algorithm off only where a socket names its protocol, unlike
            # this one: an answer's body would wait 40 ms until its head is acknowledged.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return listening
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error
    raise ConfigError(f"Can't listen on {host}, port {number}: {reason}; choose another --port.")


def hosts_of(listening: socket.socket, host: str) -> frozenset[str]:
    """The values of the header Host that mean this server."""
    port = listening.getsockname()[1]
    names = [LOOPBACK, "localhost"] if host in (LOOPBACK, "localhost") else [host]
    names = [f"[{name}]" if ":" in name else name for name in names]
    bare = names if port == 80 else []
    return frozenset([f"{name}:{port}" for name in names] + bare)


def guarded(site: "Site", hosts: frozenset[str]) -> "tuple[uvicorn.Server, Guard]":
    """The server of a site, and the guard before it."""
    import uvicorn

    from .guard import MAX_HEAD, Guard

    guard = Guard(site.app(), hosts)
    site.report_address = f"/report?key={guard.report_key}"
    config = uvicorn.Config(
        guard,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # bugs are shown by `http.bug`
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a header could change who seems to ask
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=MAX_HEAD,
    )
    server = uvicorn.Server(config)
    site.is_ending = lambda: server.should_exit
    return server, guard


def run(site: "Site", host: str, port: int | None, *, browser: bool, quiet: bool) -> None:
    """Serve until Ctrl-C."""
    with listen(host, port) as listening:
        server, guard = guarded(site, hosts_of(listening, host))
        address = f"http://{min(guard.hosts)}/#{guard.token}"
        print(address, flush=True)
        if not quiet:
            output.say("Open this address in a browser; Ctrl-C ends the server.")
        if browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        try:
            server.run(sockets=[listening])
        finally:
            site.close()


def output_folder(data: Path) -> Path:
    """Where teaching in a folder writes to by default."""
    return data.with_name(f"{data.name}-taught")
