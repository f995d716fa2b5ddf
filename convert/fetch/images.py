"""One image from the web into memory, for `mixer_mlx.images.find.find_images`."""

import threading
from http.client import HTTPException, HTTPResponse
from queue import Empty, SimpleQueue
from urllib.error import HTTPError
from urllib.request import Request, build_opener

from mixer_mlx import __version__
from mixer_mlx.errors import ImageError, SourceError
from mixer_mlx.images.pillow import reason

from .web import Redirects, check_url

MAX_BYTES = 2**28
TIMEOUT = 15.0
"""Seconds until a connection, or a silence within one, counts as failed."""
DEADLINE = 120.0
"""Seconds that an image may take in total."""

_CHUNK = 2**18


def fetch(url: str) -> bytes:
    """The file behind an http(s) URL; some redirects are refused, see `web.Redirects`.

    Raises ImageError, without a retry. Its text doesn't name the URL, unless the URL itself or a
    redirect is refused.
    """
    done: SimpleQueue[bytes | ImageError] = SimpleQueue()

    def run() -> None:
        try:
            done.put(_fetch(url))
        except ImageError as error:
            done.put(error)
        except BaseException as error:  # e.g. MemoryError
            done.put(ImageError(f"It can't be fetched ({reason(error)})."))

    # In a thread that can be left: a server that sends a header byte by byte is never silent.
    threading.Thread(target=run, daemon=True, name="fetch").start()
    try:
        found = done.get(timeout=DEADLINE)
    except Empty:
        raise ImageError(
            f"The file takes over {DEADLINE:g} seconds; download it yourself."
        ) from None
    if isinstance(found, ImageError):
        raise found
    return found


def _fetch(url: str) -> bytes:
    try:
        check_url(url)
        request = Request(url, headers={"User-Agent": f"mixer-mlx/{__version__}"})  # noqa: S310
        with build_opener(Redirects).open(request, timeout=TIMEOUT) as response:
            return _content(response)
    except SourceError as error:
        raise ImageError(str(error)) from error
    except HTTPError as error:
        error.close()
        raise ImageError(f"{_refusal(error)}; check the address.") from error
    except (OSError, HTTPException, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise ImageError(f"It can't be fetched ({why}); check the address and network.") from error


def _refusal(error: HTTPError) -> str:
    if 300 <= error.code < 400:
        return f"The server redirects in circles or to nowhere ({error.code})"
    return f"The server answered {error.code} ({' '.join(str(error.reason).split())})"


def _content(response: HTTPResponse) -> bytes:
    content = bytearray()
    while chunk := response.read1(_CHUNK):
        content += chunk
        if len(content) + (response.length or 0) > MAX_BYTES:
            raise ImageError(f"The file has more than {MAX_BYTES:,} bytes; use a smaller one.")
    if response.length:  # what the server announced and didn't send
        raise ImageError(f"The file lacks its last {response.length:,} bytes; try again.")
    return bytes(content)
