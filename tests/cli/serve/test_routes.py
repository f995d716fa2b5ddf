"""What the pages' requests are answered: the same as the commands and the library say."""

import asyncio
import io
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mixer_mlx.analysis.explain import Explainer
from mixer_mlx.analysis.heatmap import overlay
from mixer_mlx.cli.commands import application
from mixer_mlx.cli.serve import fine_tune
from mixer_mlx.convert import load

from .conftest import FILES, Server, photos_of_two, running, teach_site


def _lines(*arguments: str) -> list[dict[str, object]]:
    result = CliRunner().invoke(application(), [*arguments, "--format", "json"])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_answers_are_those_of_mixer_predict(looking: Server, cat: Path) -> None:
    for path in (cat, FILES / "ship" / "0003.jpg"):
        (expected,) = _lines("predict", str(path), "-m", "cifar10", "--device", "cpu")
        ours = looking.send("/api/predict", path.read_bytes()).json()
        assert ours["model"] == expected["model"]
        for one, other in zip(ours["predictions"], expected["predictions"], strict=True):  # type: ignore[call-overload]
            assert (one["index"], one["label"]) == (other["index"], other["label"])
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_a_calibrated_model_says_when_it_is_unsure(looking: Server) -> None:
    from mixer_mlx.calibration import Calibration
    from mixer_mlx.cli.serve.routes import LookSite

    assert looking.get("/api/state").json()["unsure_below"] is None
    classifier = load("cifar10", device="cpu")
    info = classifier.info.replace(calibration=Calibration(1.5, 0.1, 0.01, 100, 0.625))
    site = LookSite("cifar10", classifier.replace(info=info))
    assert site.now()["unsure_below"] == 0.625
    site.close()


def test_heat_map_is_the_librarys(looking: Server, cat: Path) -> None:
    answer = looking.send("/api/explain", cat.read_bytes())
    assert "content-type: image/png" in answer.head.lower()
    classifier = load("cifar10", dtype="float32", device="cpu")
    pixels = classifier.preprocess(cat)
    expected = overlay(pixels, Explainer(classifier).map(pixels, 3))
    with Image.open(io.BytesIO(answer.body)) as image:
        assert np.abs(np.asarray(image, int) - np.asarray(expected, int)).max() <= 1


def test_nearest_are_those_of_mixer_nearest(tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="NOT RUN: needs the extra serve")
    from mixer_mlx.cli.serve.command import _index
    from mixer_mlx.cli.serve.routes import NEIGHBOURS, LookSite

    file, query = tmp_path / "all.npz", FILES / "frog" / "0005.jpg"
    assert (
        not CliRunner()
        .invoke(application(), ["embed", str(FILES), "-m", "cifar10", "-o", str(file)])
        .exit_code
    )
    expected = _lines("nearest", str(query), "--in", str(file), "-k", str(NEIGHBOURS))[0]
    classifier = load("cifar10", device="cpu")
    with running(LookSite("cifar10", classifier, _index(file, classifier)), tmp_path) as server:
        found = server.send("/api/nearest", query.read_bytes()).json()
        assert found[0]["name"] == str(query)  # the command leaves the image itself out
        theirs = [one["image"] for one in expected["neighbours"]]  # type: ignore[index]
        assert [one["name"] for one in found[1:]] == theirs[: NEIGHBOURS - 1]
        small = server.get(f"/api/neighbours/{found[0]['row']}")
        with Image.open(io.BytesIO(small.body)) as image:
            assert image.size == (32, 32)
        assert server.get("/api/neighbours/32").status == 400


@pytest.fixture
def taught(tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip("starlette", reason="NOT RUN: needs the extra serve")
    folder = photos_of_two(tmp_path / "photos", 5)
    with running(teach_site(folder, tmp_path / "out"), folder) as found:
        yield found


def _image(name: str, number: int) -> bytes:
    return (FILES / name / f"{number:04}.jpg").read_bytes()


def test_teaching_by_requests(taught: Server) -> None:
    assert (
        taught.send("/api/predict", _image("frog", 9)).json()["predictions"][0]["label"] == "frog"
    )
    answer = taught.send("/api/images?class=frog", _image("ship", 9)).json()
    number, state = answer["result"], answer["state"]
    assert state["classes"] == [{"name": "frog", "images": 6}, {"name": "ship", "images": 5}]
    assert taught.get("/api/images?class=frog").json()[0] == number
    small = taught.get(f"/api/images/{number}")
    with Image.open(io.BytesIO(small.body)) as image:
        assert image.size == (32, 32)
    assert taught.send("/api/images?class=frog", _image("ship", 9)).json()["result"] is None
    doubt = taught.get("/api/review").json()[0]
    assert (doubt["number"], doubt["looks_like"]) == (number, "ship")
    state = taught.post("/api/relabel", number=number, **{"class": "ship"}).json()["state"]
    assert [one["images"] for one in state["classes"]] == [5, 6]
    assert state["undo"]
    state = taught.post("/api/remove", number=number).json()["state"]
    assert [one["images"] for one in state["classes"]] == [5, 5]
    for _ in range(2):
        state = taught.post("/api/undo").json()["state"]
    assert [one["images"] for one in state["classes"]] == [6, 5]
    assert not state["undo"]
    assert taught.get("/api/enough").json()["images"] == 11
    assert taught.post("/api/classes", name="toad").json()["result"] == "toad"
    state = taught.post("/api/rename", name="toad", to="newt").json()["state"]
    assert {"name": "newt", "images": 0} in state["classes"]


def test_saved_model_is_one_for_mixer_predict(taught: Server) -> None:
    paths = [taught.post("/api/save").json()["result"] for _ in range(2)]
    assert [Path(path).name for path in paths] == ["model-1", "model-2"]
    for name in ("frog", "ship"):
        (found,) = _lines("predict", str(FILES / name / "0011.jpg"), "-m", paths[0])
        assert found["predictions"][0]["label"] == name  # type: ignore[index]
    assert {"timm", "jax"} <= set(taught.get("/api/formats").json())
    Path(paths[1]).with_suffix(".npz").touch()  # somebody's
    exported = taught.post("/api/export", name="model-2", format="jax").json()["result"]
    assert Path(exported).name == "model-2-2.npz"
    with np.load(exported) as arrays:
        assert arrays["head/kernel"].shape == (128, 2)


def test_events_tell_of_changes(taught: Server) -> None:
    with socket.create_connection(("127.0.0.1", taught.port), timeout=20) as connection:
        connection.sendall(taught.request("GET", "/api/events"))
        file = connection.makefile("rb")
        while not (line := file.readline()).startswith(b"data: "):
            assert line
        assert (
            json.loads(line[6:])["changes"] == json.loads(taught.get("/api/state").body)["changes"]
        )
        taught.post("/api/classes", name="toad")
        while not (line := file.readline()).startswith(b"data: "):
            assert line
        assert {"name": "toad", "images": 0} in json.loads(line[6:])["classes"]


RUN = """
import json, pathlib, signal, sys, time
args = sys.argv[1:]
folder = pathlib.Path(args[args.index("-o") + 1])
folder.mkdir(parents=True, exist_ok=True)
(folder / "run.json").write_text(json.dumps({"recipe": {"epochs": 3}, "args": args}))
def stop(*_):
    print("Interrupted. Step 1 of 2 is saved.", file=sys.stderr)
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
with (folder / "log.jsonl").open("a") as log:
    print(json.dumps({"event": "step", "step": 1, "loss": 0.5}), file=log, flush=True)
if "--resume" in args:
    (folder / "report.html").write_text("<h1>done</h1>")
else:
    time.sleep(60)
"""


def test_training_is_started_stopped_and_resumed(
    taught: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for `mixer fine-tune`; the browser's tests run the real one."""
    monkeypatch.setattr(fine_tune, "mixer", lambda *args: [sys.executable, "-c", RUN, *args])

    def until(**wanted: object) -> dict[str, object]:
        for _ in range(200):
            run = taught.get("/api/state").json()["run"]
            if run and wanted.items() <= run.items() and taught.get("/api/log").json():
                return run
            time.sleep(0.05)
        raise AssertionError(run)

    assert taught.post("/api/train", epochs=3).status == 200
    until(name="run-1", running=True)
    assert taught.get("/api/log").json() == [{"event": "step", "step": 1, "loss": 0.5}]
    assert "already" in taught.post("/api/train").json()["error"]
    assert taught.get(f"/report?key={taught.report_key}").status == 400
    assert taught.post("/api/stop").status == 200
    run = until(running=False)
    assert run["sentence"] == "Interrupted. Step 1 of 2 is saved."
    assert not run["finished"]
    taught.post("/api/train", resume=True)
    until(running=False, finished=True)
    record = json.loads((taught.folder.parent / "out" / "run-1" / "run.json").read_text())
    assert record["args"] == [
        *("fine-tune", str(taught.folder), "-m", "cifar10"),
        *("-o", str(taught.folder.parent / "out" / "run-1"), "--resume", "--epochs", "3"),
    ]
    report = taught.raw(
        taught.request("GET", f"/report?key={taught.report_key}", x_mixer_token=None)
    )
    assert report.body == b"<h1>done</h1>"
    assert "content-security-policy: sandbox; default-src 'none'" in report.head.lower()


def test_a_full_queue_says_so() -> None:
    from mixer_mlx.cli.serve.desk import BusyError, Desk

    desk, gate = Desk(waiting=2), threading.Event()

    async def main() -> list[object]:
        jobs = [asyncio.ensure_future(desk.run(gate.wait))]
        await asyncio.sleep(0.05)  # the first is being done
        jobs += [asyncio.ensure_future(desk.run(int, text)) for text in "12345"]
        await asyncio.sleep(0.05)
        gate.set()
        return await asyncio.gather(*jobs, return_exceptions=True)

    first, *others = asyncio.run(main())
    assert first is True
    assert others[:2] == [1, 2]
    assert all(isinstance(one, BusyError) for one in others[2:])


def test_a_bug_shows_its_traceback_in_the_terminal(
    looking: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from mixer_mlx.images.preprocess import Preprocess

    def broken(self: object, image: object, **options: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Preprocess, "__call__", broken)
    answer = looking.send("/api/predict", _image("frog", 0))
    assert (answer.status, "bug" in answer.json()["error"]) == (500, True)
    assert "ZeroDivisionError: planted" in capfd.readouterr().err
