"""Real servers on loopback, in threads, each for a module."""

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mixer_mlx.cli.serve import server
from mixer_mlx.cli.serve.outputs import Outputs

FILES = Path(__file__).parents[2] / "golden" / "cifar_files"
CLASSES = ("frog", "ship")


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    head: str
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """A server, and what an honest page knows of it."""

    port: int
    token: str
    report_key: str
    folder: Path

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def raw(self, text: bytes, *, end: bool = False) -> Answer:
        """What comes back for these bytes; with `end` we send no more after them."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(text)
            if end:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while not _whole(received):
                if not (more := connection.recv(2**16)):
                    break
                received += more
        head, _, body = received.partition(b"\r\n\r\n")
        status = int(head.split()[1]) if head else 0
        return Answer(status, head.decode("latin-1"), body)

    def request(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> bytes:
        """An honest request, but for the headers given; None leaves one out."""
        honest: dict[str, str | None] = {
            "host": self.host,
            "x_mixer_token": self.token,
            "origin": f"http://{self.host}" if method != "GET" else None,
            "content_type": "application/octet-stream" if method == "POST" else None,
            "content_length": str(len(body)) if method == "POST" else None,
            "connection": "close",
        }
        lines = [f"{method} {path} HTTP/1.1"]
        for name, value in {**honest, **headers}.items():
            if value is not None:
                lines += [f"{name.replace('_', '-')}: {one}" for one in value.split("\n")]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def get(self, path: str) -> Answer:
        return self.raw(self.request("GET", path))

    def send(self, path: str, body: bytes) -> Answer:
        return self.raw(self.request("POST", path, body))

    def post(self, path: str, **fields: object) -> Answer:
        body = json.dumps(fields).encode()
        return self.raw(self.request("POST", path, body, content_type="application/json"))


def _whole(received: bytes) -> bool:
    head, found, body = received.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return bool(found) and len(body) >= int(line.split(b":")[1])
    return False


@contextmanager
def running(site: Any, folder: Path, *, body_seconds: float = 30) -> Iterator[Server]:
    """Serve a site in a thread."""
    with server.listen("127.0.0.1", None) as listening:
        made, guard = server.guarded(site, server.hosts_of(listening, "127.0.0.1"))
        object.__setattr__(guard, "body_seconds", body_seconds)
        thread = threading.Thread(target=made.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            port = listening.getsockname()[1]
            yield Server(port, guard.token, guard.report_key, folder)
        finally:
            made.should_exit = True
            thread.join()
            site.close()


def teach_site(folder: Path, out: Path, kept: list[dict[str, Any]] | None = None) -> Any:
    """The site of `mixer teach FOLDER -m cifar10 -o OUT`; what it would keep goes to `kept`."""
    from mixer_mlx.cli.serve.teach_routes import TeachSite
    from mixer_mlx.convert import load_embedder
    from mixer_mlx.data.album import Album
    from mixer_mlx.features.teaching import Teaching

    embedder = load_embedder("cifar10", dtype="float32", device="cpu")
    album = Album(folder)
    names = [str(path) for path in album.images()]
    known = dict(zip(names, embedder.array(names), strict=True))
    teaching = Teaching(album, embedder, known)
    keep = [] if kept is None else kept
    return TeachSite("cifar10", teaching, Outputs(out), lambda: keep.append(teaching.vectors()))


def photos_of_two(folder: Path, count: int) -> Path:
    """A folder of two classes with so many CIFAR images each."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for path in sorted((FILES / name).iterdir())[:count]:
            shutil.copy(path, folder / name)
    return folder


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`mixer serve -m cifar10`."""
    pytest.importorskip("starlette", reason="NOT RUN: needs the extra serve")
    from mixer_mlx.cli.serve.routes import LookSite
    from mixer_mlx.convert import load

    site = LookSite("cifar10", load("cifar10", dtype="float32", device="cpu"))
    with running(site, tmp_path_factory.mktemp("nothing")) as found:
        yield found


@pytest.fixture(scope="module")
def teaching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`mixer teach` in a folder with four images of two classes, and a link out of it."""
    pytest.importorskip("starlette", reason="NOT RUN: needs the extra serve")
    root = tmp_path_factory.mktemp("teach")
    folder = photos_of_two(root / "photos", 4)
    (root / "outside").mkdir()
    shutil.copy(FILES / "frog" / "0009.jpg", root / "outside")
    (folder / "link").symlink_to(root / "outside")
    (folder / "frog" / "linked.jpg").symlink_to(root / "outside" / "0009.jpg")
    with running(teach_site(folder, root / "out"), folder, body_seconds=0.3) as found:
        yield found
