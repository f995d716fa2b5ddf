"""The routes of `mixer serve`: what each address answers, by which function of the library.

Bodies are JSON, or an image's file as it is; answers are JSON, with "error" for a sentence, or an
image. Images of a folder have numbers: no path in a request reaches the file system.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mixer_mlx.errors import ConfigError, MixerError

from .desk import BusyError, Desk
from .http import Handler, bug, busy, page_routes, refused, thumbnail_response

if TYPE_CHECKING:
    from mixer_mlx.classify import Classifier
    from mixer_mlx.features.embed import Embedder
    from mixer_mlx.features.store import Vectors

Index: TypeAlias = "tuple[Vectors, Embedder]"
"""Vectors of images, and what makes such vectors."""

K = 5
"""Classes of an answer."""
NEIGHBOURS = 6
_POLL_SECONDS = 0.2


class Site:
    """What both pages have: an answer for an image, and the state, which all tabs follow."""

    report_address = ""
    """Of a run's report, with its key."""
    is_ending: Callable[[], bool] = staticmethod(lambda: False)
    """Whether the server is about to end."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.desk = Desk()

    def close(self) -> None:
        """End, after the request in progress."""
        self.desk.close()

    def app(self) -> Starlette:
        """The application."""
        gets = {"state": self.state, "events": self.events, **self.gets()}
        posts = {"predict": self.predict, **self.posts()}
        routes = [Route(f"/api/{name}", handler) for name, handler in gets.items()]
        routes += [Route(f"/api/{name}", each, methods=["POST"]) for name, each in posts.items()]
        handlers = {MixerError: refused, BusyError: busy, Exception: bug}
        app = Starlette(
            routes=[*page_routes(), *routes, *self.pages()], exception_handlers=handlers
        )
        app.router.redirect_slashes = False
        return app

    def gets(self) -> dict[str, Handler]:
        """Handlers of GET, by name below /api/."""
        return {}

    def posts(self) -> dict[str, Handler]:
        """Handlers of POST, by name below /api/."""
        return {}

    def pages(self) -> list[Route]:
        """Other pages."""
        return []

    def answer(self, data: bytes) -> list[dict[str, Any]]:
        """The classes of an image's file, most probable first. Runs at the desk."""
        raise NotImplementedError

    def now(self) -> dict[str, Any]:
        """The state. Runs in any thread."""
        return {"model": self.model, "teach": False}

    async def predict(self, request: Request) -> Response:
        """The body's classes, as `mixer predict --format json` has them."""
        found = await self.desk.run(self.answer, await request.body())
        return JSONResponse({"model": self.model, "predictions": found})

    async def state(self, request: Request) -> Response:
        """All that the page shows, except answers."""
        return JSONResponse(await run_in_threadpool(self.now))

    async def events(self, request: Request) -> Response:
        """The state, again whenever it has changed, as server-sent events."""
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        before = ""
        while not self.is_ending():
            now = json.dumps(await run_in_threadpool(self.now))
            if now != before:
                yield f"data: {now}\n\n"
            before = now
            await asyncio.sleep(_POLL_SECONDS)


class LookSite(Site):
    """`mixer serve`: a classifier, and perhaps the index of a folder."""

    def __init__(
        self,
        model: str,
        classifier: "Classifier",
        index: "Index | None" = None,
    ) -> None:
        super().__init__(model)
        self._classifier, self._index = classifier, index

    def gets(self) -> dict[str, Handler]:
        return {"neighbours/{row:int}": self.neighbour} if self._index else {}

    def posts(self) -> dict[str, Handler]:
        more: dict[str, Handler] = {"nearest": self.nearest} if self._index else {}
        return {"explain": self.explain, **more}

    def now(self) -> dict[str, Any]:
        calibration = self._classifier.info.calibration
        unsure = calibration.reject_below if calibration else None
        return {**super().now(), "index": self._index is not None, "unsure_below": unsure}

    def answer(self, data: bytes) -> list[dict[str, Any]]:
        pixels = self._classifier.preprocess(data)
        return [asdict(one) for one in self._classifier.predictions(pixels[None], k=K)[0]]

    async def explain(self, request: Request) -> Response:
        """A heat map over the body, for its most probable class, as a PNG."""
        image = await self.desk.run(self._explain, await request.body())
        return Response(image, media_type="image/png")

    def _explain(self, data: bytes) -> bytes:
        from mixer_mlx.analysis.explain import Explainer
        from mixer_mlx.analysis.heatmap import overlay
        from mixer_mlx.images.thumbnail import encoded

        pixels = self._classifier.preprocess(data)
        (best,) = self._classifier.predictions(pixels[None], k=1)[0]
        values = Explainer(self._classifier).map(pixels, best.index)
        return encoded(overlay(pixels, values), "png")

    async def nearest(self, request: Request) -> Response:
        """Rows, names and cosines of the index's images that look most like the body."""
        return JSONResponse(await self.desk.run(self._nearest, await request.body()))

    def _nearest(self, data: bytes) -> list[dict[str, Any]]:
        from mixer_mlx.features.neighbours import nearest

        if self._index is None:
            return []
        vectors, embedder = self._index
        pixels = embedder.preprocess(data)
        found = nearest(vectors.array, embedder.pixels(pixels[None]), NEIGHBOURS)
        return [
            {"row": int(row), "name": vectors.names[row], "similarity": float(similarity)}
            for row, similarity in zip(found.rows[0], found.similarities[0], strict=True)
        ]

    async def neighbour(self, request: Request) -> Response:
        """A small copy of an image of the index."""
        names, row = self._index[0].names if self._index else [], request.path_params["row"]
        if row >= len(names):
            raise ConfigError("The index has no such image.")
        return await run_in_threadpool(thumbnail_response, names[row])
