"""Addresses and servers on the web: what is refused, what may pass, and the sentences for both."""

import re
import socket
from collections.abc import Iterator
from http.client import HTTPException, HTTPMessage, HTTPResponse
from ipaddress import ip_address
from typing import IO
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request

from mixer_mlx.errors import SourceError

_CHUNK = 1 << 18


def check_url(url: str) -> None:
    """Raise SourceError unless `url` is http(s), has a host, and can be sent as it stands."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that isn't a number, a broken [IPv6] address
        usable = False
    if not usable or not re.fullmatch(r"[!-~]+", url):
        raise SourceError(
            f"{url!r} isn't a URL that can be fetched; give one like https://host/folder/file.npz, "
            "with %-codes for spaces and accents."
        )


def file_name(url: str) -> str:
    """The last part of a URL, if it can be a file's name. Raises SourceError."""
    name = unquote(urlsplit(url).path.rsplit("/", 1)[-1])
    if not re.fullmatch(r"\w[\w.+,=@() -]*", name):
        raise SourceError(f"{url} doesn't end in a file name; give the address of the file itself.")
    return name


class Redirects(HTTPRedirectHandler):
    """Follows redirects, but from https only to https, and from a public host only to public ones.

    Otherwise an address on the web could read what only this machine, or its network, may.
    """

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and (req.type, scheme) != ("http", "http"):
            fp.close()
            raise SourceError(
                f"{req.full_url} redirects to {newurl}, which isn't secure; give an https address."
            )
        if _is_private(newurl) and not _is_private(req.full_url):
            fp.close()
            raise SourceError(
                f"{req.full_url} redirects to {newurl}, which is on this machine or its network; "
                "give that address yourself if you trust it."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_private(url: str) -> bool:
    """Whether a URL's host has an address that isn't public: loopback, link-local, private, ..."""
    host = urlsplit(url).hostname or ""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
        return not all(ip_address(address.partition("%")[0]).is_global for address in found)
    except (OSError, ValueError):  # connecting raises the reason
        return False


class TryAgainError(Exception):
    """A failure that may pass; its text is the user's sentence in case it doesn't."""


def refusal(url: str, error: HTTPError) -> Exception:
    """A server's answer as TryAgainError or SourceError."""
    code = error.code
    if code in (408, 416, 429) or code >= 500:
        return TryAgainError(f"{url}: the server failed ({code} {error.reason}); try again later.")
    if code in (404, 410):
        return SourceError(f"{url} doesn't exist ({code}); check the address.")
    if code in (401, 403):
        return SourceError(
            f"{url} isn't public ({code}); download it where you are logged in, and give the "
            "file's path."
        )
    if code in (301, 302, 303, 307, 308):
        return SourceError(f"{url} redirects in circles or to nowhere; check the address.")
    return SourceError(f"{url} can't be fetched ({code} {error.reason}); check the address.")


def interrupted(url: str, detail: str) -> TryAgainError:
    """What to raise if a connection breaks in the middle of a file."""
    return TryAgainError(
        f"The download of {url} was interrupted ({detail}); run this again to resume it."
    )


def chunks(url: str, response: HTTPResponse) -> Iterator[bytes]:
    """What the server sends, as it comes. Raises TryAgainError."""
    try:
        while chunk := response.read1(_CHUNK):
            yield chunk
    except (OSError, HTTPException, ValueError) as error:
        raise interrupted(url, str(error)) from error
