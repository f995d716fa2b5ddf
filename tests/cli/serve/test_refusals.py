"""What the server refuses: every request here asks for what it must not get."""

import asyncio
import resource
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import FILES, Server

JSON = "application/json"
LONG = "9" * 1_500
FROG = (FILES / "frog" / "0012.jpg").read_bytes()

# name -> (status, method, path, body, headers other than an honest page's; {} stands for the port)
REQUESTS: dict[str, tuple[int, str, str, bytes, dict[str, str | None]]] = {
    # Host: DNS rebinding, and other names
    "no host": (400, "GET", "/api/state", b"", {"host": None}),
    "empty host": (421, "GET", "/api/state", b"", {"host": ""}),
    "another host": (421, "GET", "/api/state", b"", {"host": "evil.example:{}"}),
    "another host, page": (421, "GET", "/", b"", {"host": "evil.example"}),
    "rebound name": (421, "GET", "/api/state", b"", {"host": "localhost.evil.example:{}"}),
    "name before ours": (421, "GET", "/api/state", b"", {"host": "127.0.0.1:{}.evil.example"}),
    "user in host": (421, "GET", "/api/state", b"", {"host": "127.0.0.1:{}@evil.example"}),
    "no port": (421, "GET", "/api/state", b"", {"host": "127.0.0.1"}),
    "another port": (421, "GET", "/api/state", b"", {"host": "127.0.0.1:1"}),
    "all addresses": (421, "GET", "/api/state", b"", {"host": "0.0.0.0:{}"}),
    "another loopback": (421, "GET", "/api/state", b"", {"host": "127.0.0.2:{}"}),
    "ipv6": (421, "GET", "/api/state", b"", {"host": "[::1]:{}"}),
    "final dot": (421, "GET", "/api/state", b"", {"host": "localhost.:{}"}),
    "two hosts": (400, "GET", "/api/state", b"", {"host": "127.0.0.1:{}\nevil.example"}),
    "forwarded host": (
        *(421, "GET", "/api/state", b""),
        {"host": "evil.example", "x_forwarded_host": "127.0.0.1:{}"},
    ),
    # Origin: other web pages
    "another origin": (403, "POST", "/api/predict", FROG, {"origin": "http://evil.example"}),
    "origin null": (403, "POST", "/api/predict", FROG, {"origin": "null"}),
    "origin of https": (403, "POST", "/api/predict", FROG, {"origin": "https://127.0.0.1:{}"}),
    "origin's port": (403, "POST", "/api/predict", FROG, {"origin": "http://127.0.0.1:1"}),
    "origin's prefix": (403, "POST", "/api/predict", FROG, {"origin": "http://127.0.0.1:{}.x"}),
    "origin by name": (403, "POST", "/api/predict", FROG, {"origin": "http://localhost:{}"}),
    "no origin": (403, "POST", "/api/predict", FROG, {"origin": None}),
    "two origins": (
        *(403, "POST", "/api/predict", FROG),
        {"origin": "http://127.0.0.1:{}\nhttp://evil.example"},
    ),
    "origin of a get": (403, "GET", "/api/state", b"", {"origin": "http://evil.example"}),
    "cross-site": (403, "GET", "/api/state", b"", {"sec_fetch_site": "cross-site"}),
    "same site": (403, "GET", "/api/state", b"", {"sec_fetch_site": "same-site"}),
    "typed address": (403, "GET", "/api/state", b"", {"sec_fetch_site": "none"}),
    "preflight": (
        *(405, "OPTIONS", "/api/predict", b""),
        {"origin": "http://evil.example", "access_control_request_method": "POST"},
    ),
    # Tokens
    "no token": (403, "GET", "/api/state", b"", {"x_mixer_token": None}),
    "no token, post": (403, "POST", "/api/undo", b"{}", {"x_mixer_token": None}),
    "no token, events": (403, "GET", "/api/events", b"", {"x_mixer_token": None}),
    "no token, unknown": (403, "GET", "/api/unknown", b"", {"x_mixer_token": None}),
    "empty token": (403, "GET", "/api/state", b"", {"x_mixer_token": ""}),
    "wrong token": (403, "GET", "/api/state", b"", {"x_mixer_token": "A" * 43}),
    "odd token": (403, "GET", "/api/state", b"", {"x_mixer_token": "\xff\xfe"}),
    "token twice": (403, "GET", "/api/state", b"", {"x_mixer_token": "{token}\n{token}"}),
    "token and more": (403, "GET", "/api/state", b"", {"x_mixer_token": "{token}A"}),
    "token as a query": (403, "GET", "/api/state?token={token}", b"", {"x_mixer_token": None}),
    "token as a cookie": (
        *(403, "GET", "/api/state", b""),
        {"x_mixer_token": None, "cookie": "token={token}"},
    ),
    "report without key": (403, "GET", "/report", b"", {}),
    "report by the token": (403, "GET", "/report?key={token}", b"", {}),
    "report and more": (403, "GET", "/report?key={key}&x", b"", {}),
    # Paths
    "up from the page": (404, "GET", "/page/../guard.py", b"", {}),
    "up, encoded": (404, "GET", "/page/%2e%2e/guard.py", b"", {}),
    "up, slash encoded": (404, "GET", "/page/..%2fguard.py", b"", {}),
    "up, backslash": (404, "GET", "/page/..\\guard.py", b"", {}),
    "up from the images": (404, "GET", "/api/images/../../photos", b"", {}),
    "absolute": (404, "GET", "/etc/passwd", b"", {}),
    "absolute, doubled": (404, "GET", "//etc/passwd", b"", {}),
    "absolute, in page": (404, "GET", "/page//etc/passwd", b"", {}),
    "as a proxy": (404, "GET", "http://127.0.0.1:{}/api/state", b"", {}),
    "a file of ours": (404, "GET", "/page/guard.py", b"", {}),
    "a null byte": (404, "GET", "/page/page.css%00.html", b"", {}),
    "image of no number": (404, "GET", "/api/images/frog", b"", {}),
    "image of a negative number": (404, "GET", "/api/images/-1", b"", {}),
    "image out of range": (400, "GET", "/api/images/99999", b"", {}),
    "image of a long number": (400, "GET", f"/api/images/{LONG}", b"", {}),
    "long address": (414, "GET", f"/api/state?{'x' * 3_000}", b"", {}),
    "long head": (431, "GET", "/api/state", b"", {"x_long": "x" * 40_000}),
    # Methods
    "put": (405, "PUT", "/api/classes", b"", {}),
    "delete": (405, "DELETE", "/api/images/0", b"", {}),
    "head": (405, "HEAD", "/api/state", b"", {}),
    "trace": (405, "TRACE", "/", b"", {}),
    "get of a change": (405, "GET", "/api/undo", b"", {}),
    "post to the page": (405, "POST", "/", b"x", {}),
    "websocket": (
        *(403, "GET", "/api/events", b""),
        {"x_mixer_token": None, "connection": "Upgrade", "upgrade": "websocket"},
    ),
    # Bodies
    "10 GB": (413, "POST", "/api/predict", b"", {"content_length": "10000000000"}),
    "10 GB of fields": (
        *(413, "POST", "/api/classes", b""),
        {"content_length": "10000000000", "content_type": JSON},
    ),
    "33 MiB": (413, "POST", "/api/images?class=frog", b"", {"content_length": str(33 * 2**20)}),
    "64 KiB of fields": (413, "POST", "/api/classes", b"x" * 65_537, {"content_type": JSON}),
    "no length": (411, "POST", "/api/predict", b"", {"content_length": None}),
    "chunked": (
        *(411, "POST", "/api/predict", b"5\r\nhello\r\n0\r\n\r\n"),
        {"content_length": None, "transfer_encoding": "chunked"},
    ),
    "smuggled": (
        *(400, "POST", "/api/predict", b"0\r\n\r\n"),
        {"transfer_encoding": "chunked\ngzip"},
    ),
    "negative length": (400, "POST", "/api/predict", b"", {"content_length": "-1"}),
    "length of no number": (400, "POST", "/api/predict", b"", {"content_length": "ten"}),
    "slow body": (408, "POST", "/api/predict", FROG[:10], {"content_length": str(len(FROG))}),
    "get with a body": (400, "GET", "/api/state", b"x", {"content_length": "1"}),
    "multipart": (
        *(415, "POST", "/api/images?class=frog", b'--x\r\nname="f"\r\n\r\n'),
        {"content_type": "multipart/form-data; boundary=x"},
    ),
    "half a multipart": (
        *(415, "POST", "/api/images?class=frog", b"--x\r\nCont"),
        {"content_type": "multipart/form-data; boundary=x", "content_length": "900"},
    ),
    "form": (415, "POST", "/api/classes", b"name=x", {"content_type": "text/plain"}),
    "no type": (415, "POST", "/api/classes", b"{}", {"content_type": None}),
    "broken json": (400, "POST", "/api/classes", b'{"name": ', {"content_type": JSON}),
    "json list": (400, "POST", "/api/classes", b'["x"]', {"content_type": JSON}),
    "deep json": (400, "POST", "/api/classes", b"[" * 60_000, {"content_type": JSON}),
    "not utf-8": (400, "POST", "/api/classes", b'{"name": "\xff"}', {"content_type": JSON}),
}

# path -> fields that it must refuse
FIELDS: list[tuple[str, dict[str, object]]] = [
    *(
        ("classes", {"name": name})
        for name in [
            *(
                "",
                ".",
                "..",
                "../up",
                "a/b",
                "a\\b",
                "/etc",
                "x\0y",
                "x\ny",
                "\x1b[2J",
                "\u202eevil",
            ),
            *(".removed", ".hidden", "ends.", " begins", "ends ", "C:", "what?", "a" * 256),
            *("\u00e9" * 128, "FROG", "Ship", "link", "Thumbs.db", "\ud800", 5, None, ["x"]),
        ]
    ),
    ("rename", {"name": "frog", "to": "../frog"}),
    ("rename", {"name": "frog", "to": "SHIP"}),
    ("rename", {"name": "../outside", "to": "stolen"}),
    ("rename", {"name": "link", "to": "stolen"}),
    ("rename", {"name": ".removed", "to": "back"}),
    *(("remove", {"number": number}) for number in (-1, 99_999, "0", 0.0, True, None)),
    ("relabel", {"number": 0, "class": ".."}),
    ("relabel", {"number": 0, "class": "link"}),
    ("relabel", {"number": 0, "class": "nobody"}),
    ("export", {"name": "../photos", "format": "jax"}),
    ("export", {"name": "model-1", "format": "../x"}),
    ("train", {"epochs": -1}),
    ("train", {"epochs": "1; rm"}),
    ("train", {"resume": True}),
]


def _png(width: int, height: int) -> bytes:
    """A PNG that claims a size, with little in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


BAD_IMAGES = {
    "empty": b"",
    "text": b"hello",
    "html": b"<!doctype html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "pdf": b"%PDF-1.7\n",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "psd": b"8BPS\0\1" + bytes(40),
    "zip": b"PK\3\4" + bytes(60),
    "safetensors": b"\x08\0\0\0\0\0\0\0{}      ",
    "cut jpeg": FROG[: len(FROG) // 3],
    "head of a jpeg": FROG[:4],
    "png of a gigapixel": _png(40_000, 40_000),
    "png of nothing": _png(0, 0),
    "png without its pixels": _png(500, 500),
    "gif of nothing": b"GIF89a" + bytes(20),
    "webp of nothing": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(9),
    "bmp of nothing": b"BM" + bytes(60),
    "tiff of nothing": b"II*\0" + bytes(30),
    "avif of nothing": b"\0\0\0\x18ftypavif" + bytes(40),
}


@pytest.fixture(scope="module")
def unchanged(teaching: Server) -> Iterator[None]:
    """Nothing below the folder's parent may change in the whole module."""
    before = _tree(teaching.folder.parent)
    yield
    assert _tree(teaching.folder.parent) == before


def _tree(folder: Path) -> list[tuple[str, bytes]]:
    return sorted(
        (str(path), path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*")
    )


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", REQUESTS)
def test_request_is_refused(teaching: Server, name: str) -> None:
    status, method, path, body, headers = REQUESTS[name]

    def filled(text: str) -> str:
        found = text.replace("{token}", teaching.token).replace("{key}", teaching.report_key)
        return found.replace("{}", str(teaching.port))

    given = {key: None if value is None else filled(value) for key, value in headers.items()}
    answer = teaching.raw(teaching.request(method, filled(path), body, **given))
    assert answer.status == status
    assert teaching.token not in answer.head + answer.body.decode("latin-1")
    assert "access-control" not in answer.head.lower()
    assert b"root:" not in answer.body


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("path", "fields"), FIELDS)
def test_fields_are_refused(teaching: Server, path: str, fields: dict[str, object]) -> None:
    answer = teaching.post(f"/api/{path}", **fields)
    assert answer.status == 400
    assert answer.json()["error"].endswith(".")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_is_refused(teaching: Server, name: str) -> None:
    for path in ("/api/predict", "/api/images?class=frog"):
        answer = teaching.send(path, BAD_IMAGES[name])
        assert answer.status == 400
        assert answer.json()["error"].endswith(".")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", ["..", "../out", "link", ".removed", "%ff", "frog/", "", "FROG"])
def test_image_for_another_folder_is_refused(teaching: Server, name: str) -> None:
    assert teaching.send(f"/api/images?class={name}", FROG).status == 400


@pytest.mark.usefixtures("unchanged")
def test_body_that_ends_early_is_refused(teaching: Server) -> None:
    text = teaching.request("POST", "/api/images?class=frog", FROG)
    assert teaching.raw(text[:-100], end=True).status in (0, 400)


def test_links_are_neither_classes_nor_images(teaching: Server) -> None:
    found = teaching.get("/api/state").json()["classes"]
    assert found == [{"name": "frog", "images": 4}, {"name": "ship", "images": 4}]


def test_page_is_for_itself_alone(teaching: Server) -> None:
    """What each response says to the browser, the page without any token among them."""
    page = teaching.raw(teaching.request("GET", "/", x_mixer_token=None))
    assert page.status == 200
    assert teaching.token.encode() not in page.body
    for answer in (page, teaching.get("/api/state"), teaching.get("/nothing")):
        head = answer.head.lower()
        for line in (
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; "
            "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "cache-control: no-store",
        ):
            assert line in head


def test_a_thousand_at_once_are_answered_or_told_to_wait(looking: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    text = looking.request("POST", "/api/predict", FROG)

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", looking.port)
        try:
            writer.write(text)
            await writer.drain()
            return int((await reader.read()).split()[1])
        except ConnectionError:  # refused before it had sent all
            return 503
        finally:
            writer.close()

    async def many() -> list[int]:
        return await asyncio.gather(*(one() for _ in range(1_000)))

    statuses = asyncio.run(many())
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert set(statuses) <= {200, 503}
    assert 503 in statuses
    assert looking.send("/api/predict", FROG).status == 200
