"""The routes of `mixer teach`: changes of the folder, review, saving, training and exporting."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mixer_mlx.checks import check_whole

from .fine_tune import FineTune
from .guard import REPORT
from .http import Handler, fields, number, texts, thumbnail_response
from .outputs import Outputs, installed_formats
from .routes import K, Site

if TYPE_CHECKING:
    from mixer_mlx.features.teaching import Teaching

DOUBTS = 60
"""At most so many images are shown for review."""


class TeachSite(Site):
    """`mixer teach`: the classes of a folder. A change answers with its result and the state."""

    def __init__(
        self, model: str, teaching: "Teaching", outputs: Outputs, keep: Callable[[], None]
    ) -> None:
        super().__init__(model)
        self._teaching, self._outputs, self._keep = teaching, outputs, keep
        self._runs = FineTune(teaching.album.folder, model, outputs)
        self._seen = self._look()

    def close(self) -> None:
        """Save what is in memory only: a run's state, and the features of images."""
        self._runs.close()
        super().close()
        self._keep()

    def gets(self) -> dict[str, Handler]:
        return {
            "images": self.images,
            "images/{number:int}": self.image,
            "review": self.review,
            "enough": self.enough,
            "formats": self.formats,
            "log": self.log,
        }

    def posts(self) -> dict[str, Handler]:
        return {
            "classes": self.make,
            "rename": self.rename,
            "images": self.add,
            "remove": self.remove,
            "relabel": self.relabel,
            "undo": self.undo,
            "save": self.save,
            "export": self.export,
            "train": self.train,
            "stop": self.stop,
        }

    def pages(self) -> list[Route]:
        return [Route(REPORT, self.report)]

    def now(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "teach": True,
            "folder": str(self._teaching.album.folder),
            **self._seen,
            "out": str(self._outputs.folder),
            "models": self._outputs.models(),
            "run": self._runs.state(),
            "report": self.report_address,
        }

    def answer(self, data: bytes) -> list[dict[str, Any]]:
        found = self._teaching.answer(data)[:K]
        return [{"label": name, "probability": share} for name, share in found]

    async def make(self, request: Request) -> Response:
        """Make a class: {"name"}."""
        return await self._change(self._teaching.make, *await texts(request, "name"))

    async def rename(self, request: Request) -> Response:
        """Rename a class: {"name", "to"}."""
        return await self._change(self._teaching.rename, *await texts(request, "name", "to"))

    async def add(self, request: Request) -> Response:
        """Add the body to the class in the query; the result is its number, or null."""
        name = request.query_params.get("class", "")
        return await self._change(self._teaching.add, name, await request.body())

    async def remove(self, request: Request) -> Response:
        """Take an image back: {"number"}."""
        return await self._change(self._teaching.remove, await number(request))

    async def relabel(self, request: Request) -> Response:
        """Move an image to a class, or confirm its own: {"number", "class"}."""
        (name,) = await texts(request, "class")
        return await self._change(self._teaching.relabel, await number(request), name)

    async def undo(self, request: Request) -> Response:
        """Take the last change of an image back."""
        return await self._change(self._teaching.undo)

    async def images(self, request: Request) -> Response:
        """Numbers of a class's images, newest first."""
        name = request.query_params.get("class", "")
        return JSONResponse((await self.desk.run(self._teaching.numbers, name))[::-1])

    async def image(self, request: Request) -> Response:
        """A small copy of an image."""
        return await self.desk.run(self._image, request.path_params["number"])

    def _image(self, number: int) -> Response:
        return thumbnail_response(str(self._teaching.example(number).path))

    async def review(self, request: Request) -> Response:
        """The images that a probe doubts most."""
        found = await self.desk.run(self._teaching.doubts)
        return JSONResponse([asdict(one) for one in found[:DOUBTS]])

    async def enough(self, request: Request) -> Response:
        """Accuracy by cross-validation, and by the number of images."""
        return JSONResponse(await self.desk.run(self._enough))

    def _enough(self) -> dict[str, Any]:
        from mixer_mlx.analysis.enough import enough

        return asdict(enough(self._teaching.labelled()))

    async def save(self, request: Request) -> Response:
        """Write a model with the probe as its head."""
        return await self._change(self._save)

    def _save(self) -> str:
        from mixer_mlx import checkpoint

        path = self._outputs.following("model")
        checkpoint.save(path, *self._teaching.with_head())
        return str(path)

    async def formats(self, request: Request) -> Response:
        """Names of the formats that can be exported here."""
        return JSONResponse(await run_in_threadpool(installed_formats))

    async def export(self, request: Request) -> Response:
        """Export a saved model or a run: {"name", "format"}; the result is the path."""
        path = await run_in_threadpool(
            self._outputs.export, *await texts(request, "name", "format")
        )
        return await self._changed(str(path))

    async def train(self, request: Request) -> Response:
        """Begin a run, of {"epochs"} if given, or with {"resume": true} continue the newest."""
        asked = await fields(request)
        if (epochs := asked.get("epochs")) is not None:
            check_whole("epochs", epochs, 1, 10_000)
        resume = asked.get("resume") is True
        await run_in_threadpool(self._runs.start, epochs, resume=resume)
        return await self._changed()

    async def stop(self, request: Request) -> Response:
        """Have the run save its state and end."""
        self._runs.stop()
        return await self._changed()

    async def log(self, request: Request) -> Response:
        """The newest run's steps and epochs."""
        return JSONResponse(await run_in_threadpool(self._runs.log))

    async def report(self, request: Request) -> Response:
        """The newest run's report, a page of its own."""
        return Response(await run_in_threadpool(self._runs.report), media_type="text/html")

    async def _change(self, change: Callable[..., object], *arguments: object) -> Response:
        return await self._changed(await self.desk.run(self._do, change, *arguments))

    def _do(self, change: Callable[..., object], *arguments: object) -> object:
        try:
            return change(*arguments)
        finally:
            self._seen = self._look()

    def _look(self) -> dict[str, Any]:
        """What other threads may see of the session, between two changes."""
        counts = self._teaching.counts()
        return {
            "classes": [{"name": name, "images": count} for name, count in counts.items()],
            "changes": self._teaching.changes,
            "undo": self._teaching.album.can_undo,
        }

    async def _changed(self, result: object = None) -> Response:
        state = await run_in_threadpool(self.now)
        return JSONResponse({"result": result, "state": state})
