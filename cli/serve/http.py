"""Requests into values, and values into responses."""

import json
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mixer_mlx.errors import ConfigError, ImageError

Handler = Callable[[Request], Awaitable[Response]]

_PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def page_routes() -> list[Route]:
    """The page's own files, which are read once, here: no request names a file."""
    routes = [_file_route(f"/page/{path.name}", path) for path in sorted(_PAGE.iterdir())]
    return [_file_route("/", _PAGE / "index.html"), *routes]


def _file_route(address: str, path: Path) -> Route:
    content, media_type = path.read_bytes(), _TYPES[path.suffix]

    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return Route(address, answer)


async def fields(request: Request) -> dict[str, Any]:
    """The body's JSON object. Raises ConfigError."""
    try:
        found = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise ConfigError("The body isn't JSON.") from error
    if not isinstance(found, dict):
        raise ConfigError("The body isn't a JSON object.")
    return found


async def texts(request: Request, *names: str) -> list[str]:
    """Texts of the body's object. Raises ConfigError for one that is missing or no text."""
    values = [(await fields(request)).get(name) for name in names]
    if not all(isinstance(value, str) for value in values):
        raise ConfigError(f"Expected the texts {', '.join(names)}.")
    return values  # type: ignore[return-value]


async def number(request: Request) -> int:
    """ "number" of the body's object. Raises ConfigError."""
    value = (await fields(request)).get("number")
    if type(value) is not int:
        raise ConfigError("Expected a whole number.")
    return value


def thumbnail_response(path: str) -> Response:
    """A small copy of an image file. Raises ImageError."""
    from mixer_mlx.images.thumbnail import encoded, open_thumbnail

    image = open_thumbnail(path)
    if image is None:
        raise ImageError("The file isn't a readable image any more.")
    return Response(encoded(image, "jpeg"), media_type="image/jpeg")


async def refused(request: Request, error: Exception) -> Response:
    """What the user can mend, as a sentence."""
    return JSONResponse({"error": str(error)}, 400)


async def bug(request: Request, error: Exception) -> Response:
    """Our own fault: its traceback goes to the terminal."""
    traceback.print_exception(error)
    return JSONResponse({"error": "The server has a bug; the terminal shows more."}, 500)


async def busy(request: Request, error: Exception) -> Response:
    """The queue is full."""
    return JSONResponse({"error": str(error)}, 503, {"retry-after": "1"})
