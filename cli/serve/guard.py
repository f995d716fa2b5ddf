"""Who may ask: what every request must bring before anything else looks at it.

The server listens on loopback, which every program of the machine and, through the browser, every
web page reaches. So Host must be the server's own (a rebound DNS name isn't), a web page of another
origin is refused by Origin and Sec-Fetch-Site, and all but the page itself needs the token that was
made at this start: it is in the address that the terminal shows, behind the `#`, which browsers
never send. Bodies are bounded in kind, size and time. Nothing is allowed to other origins (no
CORS), and the page may load nothing but itself.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

TOKEN_HEADER = b"x-mixer-token"
MAX_TARGET = 2_000
"""Bytes of a path and its query."""
MAX_BODY = {b"application/json": 2**16, b"application/octet-stream": 2**25}
"""Bytes of a body, by its type: fields, and an image's file."""
MAX_HEAD = 2**14
"""Bytes of all headers."""
BODY_SECONDS = 30.0
API, REPORT = "/api/", "/report"

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src "
    "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A report is one file, whose images and styles are in it; it has no scripts."""
_HEADERS = {
    b"cache-control": b"no-store",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(self), microphone=(), geolocation=()",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}


class RefusedError(Exception):
    """A request that isn't answered: the status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def _new_key() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Guard:
    """An ASGI application that lets only permitted requests through to `app`.

    `hosts` are the values of Host that are the server's own. `token` is for the API; `report_key`
    is that of a report's address, which a new tab opens and so can't bring a header.
    """

    app: App
    hosts: frozenset[str]
    token: str = field(default_factory=_new_key)
    report_key: str = field(default_factory=_new_key)
    body_seconds: float = BODY_SECONDS

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return
        policy = _REPORT_POLICY if scope["path"] == REPORT else _PAGE_POLICY

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                safe = {**_HEADERS, b"content-security-policy": policy.encode()}
                message["headers"] = [*message.get("headers", ()), *safe.items()]
            await send(message)

        try:
            self._check(scope)
            body = await self._body(scope, receive)
        except RefusedError as refused:
            await _answer(send_safely, refused)
            return
        await self.app(scope, _with_body(body, receive), send_safely)

    def _check(self, scope: Message) -> None:
        headers = _headers(scope)
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET:
            raise RefusedError(414, "The address is too long.")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEAD:
            raise RefusedError(431, "The headers are too long.")
        if scope["method"] not in ("GET", "POST"):
            raise RefusedError(405, "Only GET and POST are answered.")
        host = _only(headers, b"host")
        if host not in self.hosts:
            raise RefusedError(421, f"Open this server as {min(self.hosts)}.")
        self._check_origin(headers, host, scope)
        if scope["path"].startswith(API):
            if not _same(_only(headers, TOKEN_HEADER), self.token):
                raise RefusedError(403, "The token is missing or old; open this start's address.")
        elif scope["path"] == REPORT:
            if not _same(scope["query_string"].decode("latin-1"), f"key={self.report_key}"):
                raise RefusedError(403, "The address of a report is another at each start.")
        elif scope["method"] != "GET":
            raise RefusedError(405, "The page can only be read.")

    def _check_origin(self, headers: dict[bytes, list[bytes]], host: str, scope: Message) -> None:
        origins = headers.get(b"origin", [])
        if origins and origins != [f"http://{host}".encode()]:
            raise RefusedError(403, "Requests of other web pages are refused.")
        if scope["method"] == "POST" and not origins:
            raise RefusedError(403, "A request that changes something needs its Origin.")
        site = headers.get(b"sec-fetch-site", [b"same-origin"])
        if scope["path"].startswith(API) and site != [b"same-origin"]:
            raise RefusedError(403, "Requests of other web pages are refused.")

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        headers = _headers(scope)
        if b"transfer-encoding" in headers:
            raise RefusedError(411, "A body needs its length.")
        length = _only(headers, b"content-length")
        if scope["method"] == "GET":
            if length not in ("", "0"):
                raise RefusedError(400, "A GET has no body.")
            return b""
        if not length.isdecimal() or len(length) > 12:
            raise RefusedError(411, "A body needs its length.")
        limit = MAX_BODY.get(_only(headers, b"content-type").encode())
        if limit is None:
            raise RefusedError(415, "Send application/json, or a file as application/octet-stream.")
        if int(length) > limit:
            raise RefusedError(413, f"The body is too large; {limit:,} bytes are the most.")
        try:
            async with asyncio.timeout(self.body_seconds):
                return await _read(receive)
        except TimeoutError:
            raise RefusedError(408, "The body came too slowly.") from None


def _headers(scope: Message) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


def _only(headers: dict[bytes, list[bytes]], name: bytes) -> str:
    """The value of a header that may be there once; "" if it is missing or repeated."""
    values = headers.get(name, [])
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _same(given: str, expected: str) -> bool:
    return secrets.compare_digest(given.encode("latin-1"), expected.encode())


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "The body ended early.")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _with_body(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then what the connection says, e.g. that it was closed."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


async def _answer(send: Send, refused: RefusedError) -> None:
    body = json.dumps({"error": str(refused)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # a body may be on its way still
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
