"""Images over http, from a server on this machine that fails in every way."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request

import pytest

from mixer_mlx import Classifier, ImageError, load
from mixer_mlx.convert.fetch import images as web
from mixer_mlx.convert.fetch.images import fetch
from mixer_mlx.errors import SourceError
from mixer_mlx.images.find import find_images

PNG = (Path(__file__).parents[3] / "examples" / "cat.png").read_bytes()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path
        if path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/cat.png")
            self.end_headers()
        elif path == "/circle":
            self.send_response(302)
            self.send_header("Location", "/circle")
            self.end_headers()
        elif path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        elif path == "/cut":
            self._answer(PNG[:1000], len(PNG))
        elif path == "/no-length":
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + PNG)
        elif path == "/noise":
            self.wfile.write(b"\0\xff" * 99)
        elif path == "/silent":
            threading.Event().wait(1.0)
        elif path == "/text":
            self._answer(b"no image", 10)
        elif path == "/cat.png":
            self._answer(PNG, len(PNG))
        else:
            self.send_error(404)

    def _answer(self, body: bytes, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load("cifar10")


@pytest.mark.parametrize("path", ["/cat.png", "/moved", "/no-length"])
def test_the_bytes_come_as_they_are(url: str, path: str) -> None:
    assert fetch(url + path) == PNG


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/nothing", "The server answered 404"),
        ("/circle", "redirects in circles"),
        ("/elsewhere", "redirects in circles or to nowhere"),
        ("/cut", f"lacks its last {len(PNG) - 1000:,} bytes"),
        ("/noise", "can't be fetched"),
        ("/silent", "timed out"),
        ("/a b", "isn't a URL that can be fetched"),
    ],
)
def test_each_failure_is_a_sentence(
    url: str, path: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "TIMEOUT", 0.3)
    with pytest.raises(ImageError) as caught:
        fetch(url + path)
    assert says in str(caught.value)
    assert str(caught.value).count("\n") == 0
    assert str(caught.value).endswith(".")


def test_nobody_is_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(ImageError, match="Connection refused"):
            fetch(f"http://127.0.0.1:{closed.getsockname()[1]}/cat.png")


@pytest.mark.parametrize("path", ["/cat.png", "/no-length"])
def test_too_large(url: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_BYTES", len(PNG) - 1)
    with pytest.raises(ImageError, match="more than"):
        fetch(url + path)
    monkeypatch.setattr(web, "MAX_BYTES", len(PNG))
    assert fetch(url + path) == PNG


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nServer: ", b"a"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"a"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    ],
    ids=["continue", "header", "body", "chunk extension", "trailers"],
)
def test_a_server_that_never_falls_silent(
    first: bytes, again: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "DEADLINE", 0.2)
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(first)
            while not over.wait(0.01):
                connection.sendall(again)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        try:
            with pytest.raises(ImageError, match=r"takes over 0\.2 seconds"):
                fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/cat.png")
        finally:
            over.set()
            server.join()


@pytest.mark.parametrize(
    ("target", "refused"),
    [
        *(
            (f"http://{host}/a.png", True)
            for host in ("127.0.0.1", "[::1]", "10.0.0.1", "172.16.0.1")
        ),
        *((f"http://{host}/a.png", True) for host in ("169.254.169.254", "192.168.1.1:8080")),
        *((f"http://{host}/a.png", True) for host in ("localhost", "[fe80::1]", "100.64.0.1")),
        ("http://8.8.4.4/a.png", False),
    ],
)
def test_a_public_address_never_leads_to_a_private_one(target: str, refused: bool) -> None:
    class Body:
        def close(self) -> None:
            pass

    def follow(start: str) -> object:
        request = Request(start)  # noqa: S310
        return web.Redirects().redirect_request(request, Body(), 302, "", {}, target)

    if refused:
        with pytest.raises(SourceError, match="on this machine or its network"):
            follow("http://8.8.8.8/a.png")
    else:
        assert follow("http://8.8.8.8/a.png")
    assert follow("http://127.0.0.1/a.png")  # the user's own choice


def test_https_never_leads_to_http() -> None:
    request = Request("https://example.org/cat.png")

    class Body:
        def close(self) -> None:
            pass

    with pytest.raises(Exception, match="isn't secure"):
        web.Redirects().redirect_request(
            request, Body(), 302, "", None, "http://example.org/cat.png"
        )


def test_predictions_of_urls(classifier: Classifier, url: str, cat: Path) -> None:
    names = [f"{url}/cat.png", f"{url}/text", f"{url}/nothing", str(cat)]
    results = list(classifier.predict(find_images(names, fetch=fetch)))
    assert [str(result.image) for result in results] == names
    assert [result.error is None for result in results] == [True, False, False, True]
    assert results[0].predictions[0].label == results[3].predictions[0].label
