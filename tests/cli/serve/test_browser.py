"""The page in a real browser: headless Chromium with a fake camera, driven by Playwright."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import PATIENCE, browsing
from typer.testing import CliRunner

from mixer_mlx.cli.commands import application

from .conftest import FILES, Server, photos_of_two, running, teach_site

pytestmark = pytest.mark.browser

chromium = pytest.fixture(scope="module")(browsing)
Open = Callable[..., Any]


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """Opens an address in a window; at the end no page may have complained or gone elsewhere."""
    contexts, faults, asked = [], [], []

    def open_(address: str, context: Any = None, *, calm: bool = True, **options: Any) -> Any:
        if context is None:
            size = {"viewport": {"width": 1280, "height": 900}}
            context = chromium.new_context(**{**size, **options})
            context.set_default_timeout(PATIENCE)
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        if calm:  # the browser itself notes each answer of 400 and above
            page.on("console", lambda one: faults.append(one.text) if one.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not faults
    elsewhere = [url for url in asked if not re.match("(http://127.0.0.1:|blob:http://127)", url)]
    assert not elsewhere


def _address(server: Server) -> str:
    return f"http://{server.host}/#{server.token}"


def _expect(locator: Any) -> Any:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    return expect(locator)


def _give(page: Any, event: str, target: str, paths: list[Path]) -> None:
    """Drop files on an element, or paste them."""
    files = [(path.name, base64.b64encode(path.read_bytes()).decode()) for path in paths]
    page.evaluate(
        """([event, target, files]) => {
            const data = new DataTransfer();
            for (const [name, text] of files) {
                const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
                data.items.add(new File([bytes], name, {type: "image/" + name.split(".").pop()}));
            }
            const options = {dataTransfer: data, clipboardData: data, bubbles: true};
            const kind = event === "paste" ? ClipboardEvent : DragEvent;
            document.querySelector(target).dispatchEvent(new kind(event, options));
        }""",
        [event, target, files],
    )


def _bars(item: Any) -> list[tuple[str, str]]:
    lines = item.locator(".bars li").all_inner_texts()
    return [tuple(line.split("\n")[:2]) for line in lines]  # type: ignore[misc]


def _predicted(path: Path, model: str) -> list[tuple[str, str]]:
    result = CliRunner().invoke(
        application(), ["predict", str(path), "-m", model, "--format", "json"]
    )
    found = json.loads(result.stdout)["predictions"]
    return [(one["label"], f"{one['probability']:.1%}") for one in found]


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_answers_are_those_of_mixer_predict(
    looking: Server, visit: Open, cat: Path, event: str
) -> None:
    page = visit(_address(looking))
    _give(page, event, "#look", [cat, FILES / "ship" / "0003.jpg"])
    _expect(page.locator("#results .bars li")).to_have_count(10)
    first, second = page.locator("#results > li").all()  # the newest first
    assert _bars(second) == _predicted(cat, "cifar10")
    assert _bars(first) == _predicted(FILES / "ship" / "0003.jpg", "cifar10")
    first.get_by_role("button", name="Why?").click()
    _expect(first.get_by_alt_text("Heat map")).to_be_visible()


def test_what_cant_be_read_is_said(looking: Server, visit: Open, tmp_path: Path) -> None:
    bad = tmp_path / "<b>bad.png"
    bad.write_bytes(b"no image")
    page = visit(_address(looking), calm=False)
    _give(page, "drop", "#look", [bad, FILES / "frog" / "0000.jpg"])
    _expect(page.locator("#results .bars li")).to_have_count(5)
    item = page.locator("#results > li").last
    _expect(item).to_contain_text("<b>bad.png")
    _expect(item).to_contain_text("isn't an image in a supported format")
    stale = visit(f"http://{looking.host}/#old", calm=False)
    _expect(stale.locator("#status")).to_contain_text("open this start's address")


def test_camera(looking: Server, visit: Open) -> None:
    page = visit(_address(looking))
    button = page.get_by_role("button", name="Camera")
    button.click()
    _expect(page.locator("#live-answer li")).to_have_count(5)
    _expect(button).to_have_attribute("aria-pressed", "true")
    best = page.locator("#live-answer li span").first.inner_text()
    assert best in {"airplane", "automobile", "bird", "frog", "truck", "deer", "ship", "cat"}
    button.click()
    _expect(page.locator("#live")).to_be_hidden()


@pytest.fixture
def taught(tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip("starlette", reason="NOT RUN: needs the extra serve")
    folder = tmp_path / "photos"
    with running(teach_site(folder, tmp_path / "out"), folder) as found:
        yield found


def _card(page: Any, name: str) -> Any:
    return page.locator(".class").filter(has=page.locator(f'h3 b:text-is("{name}")'))


def _teach(page: Any, count: int) -> None:
    for name in ("frog", "ship"):
        page.get_by_label("Name of a new class").fill(name)
        page.get_by_role("button", name="Add a class").click()
        _expect(_card(page, name)).to_be_visible()
        target = f"#classes li:has(b:text-is('{name}'))"
        page.locator(target).evaluate("(card) => card.id = 'target'")
        _give(page, "drop", "#target", sorted((FILES / name).iterdir())[:count])
        page.locator("#target").evaluate("(card) => card.id = ''")
        _expect(_card(page, name)).to_contain_text(f"{count} images")


def test_two_classes_are_taught_and_kept(taught: Server, visit: Open) -> None:
    page = visit(_address(taught))
    _teach(page, 8)
    assert len(list(taught.folder.rglob("*.jpg"))) == 16
    _give(page, "drop", "#look", [FILES / "frog" / "0012.jpg", FILES / "ship" / "0012.jpg"])
    _expect(page.locator("#results .bars li")).to_have_count(4)
    answers = [_bars(item)[0][0] for item in page.locator("#results > li").all()]
    assert answers == ["ship", "frog"]
    page.reload()
    for name in ("frog", "ship"):
        _expect(_card(page, name)).to_contain_text("8 images")
        _expect(_card(page, name).locator(".strip img")).to_have_count(8)


def test_review_undo_and_a_second_tab(taught: Server, visit: Open) -> None:
    page = visit(_address(taught))
    _teach(page, 6)
    other = visit(_address(taught), page.context)
    taught.send("/api/images?class=frog", (FILES / "ship" / "0009.jpg").read_bytes())
    for tab in (page, other):
        _expect(_card(tab, "frog")).to_contain_text("7 images")
    page.get_by_role("button", name="Review").click()
    first = page.locator("#doubts li").first
    _expect(first).to_contain_text("looks like ship")
    _expect(first).to_be_focused()
    page.keyboard.press("2")  # the second class
    for tab in (page, other):
        _expect(_card(tab, "ship")).to_contain_text("7 images")
    _expect(page.locator("#doubts li")).to_have_count(12)
    page.keyboard.press("Enter")
    _expect(page.locator("#doubts li")).to_have_count(11)
    other.get_by_role("button", name="Undo").click()
    _expect(_card(page, "frog")).to_contain_text("7 images")
    _card(page, "ship").get_by_role("button", name="Take this image back").first.click()
    _expect(_card(other, "ship")).to_contain_text("5 images")
    page.get_by_role("button", name="Undo").click()
    _expect(_card(other, "ship")).to_contain_text("6 images")
    page.get_by_role("button", name="Enough images?").click()
    _expect(page.locator("#enough-answer")).to_contain_text("95% interval")
    page.once("dialog", lambda dialog: dialog.accept("boat"))
    _card(page, "ship").get_by_role("button", name="Rename").click()
    _expect(_card(other, "boat")).to_contain_text("6 images")
    assert (taught.folder / "boat").is_dir()


def test_recording_by_mouse_and_by_keyboard(taught: Server, visit: Open) -> None:
    page = visit(_address(taught))
    _teach(page, 3)
    record = _card(page, "frog").get_by_role("button", name="Hold to record")
    record.hover()
    page.mouse.down()
    _expect(_card(page, "frog")).to_contain_text(re.compile("([6-9]|[1-9][0-9]) images"))
    page.mouse.up()
    _expect(page.locator("#status")).to_contain_text("recorded")
    before = len(list((taught.folder / "ship").iterdir()))
    _card(page, "ship").get_by_role("button", name="Hold to record").focus()
    page.keyboard.down(" ")
    _expect(_card(page, "ship")).to_contain_text(re.compile("([5-9]|[1-9][0-9]) images"))
    page.keyboard.up(" ")
    _expect(page.locator("#status")).to_contain_text("ship: ")
    assert len(list((taught.folder / "ship").iterdir())) > before


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 700, 1000, 1600])
def test_it_fits(taught: Server, visit: Open, width: int, scheme: str) -> None:
    long = "a class with a rather long name " + "x" * 60
    taught.post("/api/classes", name=long)
    taught.post("/api/classes", name="b")
    for number, name in enumerate([long] * 7 + ["b"] * 6):
        data = (FILES / "frog" / f"{number:04}.jpg").read_bytes()
        assert (
            taught.raw(
                taught.request("POST", f"/api/images?class={name.replace(' ', '%20')}", data)
            ).json()["result"]
            is not None
        )
    size = {"width": width, "height": 800}
    page = visit(_address(taught), viewport=size, color_scheme=scheme)
    _expect(page.locator(".class")).to_have_count(2)
    page.get_by_role("button", name="Review").click()
    _expect(page.locator("#doubts li")).to_have_count(13)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 22, 21)")


def test_what_a_screen_reader_hears(taught: Server, visit: Open) -> None:
    page = visit(_address(taught))
    _teach(page, 2)
    heard = page.locator("body").aria_snapshot()
    for line in (
        'heading "mixer" [level=1]',
        "status",
        'region "Look"',
        'button "Camera"',
        'list "Classes"',
        'heading "frog 2 images Rename" [level=3]',
        'button "Hold to record"',
        'textbox "Name of a new class"',
        'button "Enough images?"',
        'region "Keep"',
    ):
        assert line in heard
    nameless = page.get_by_role("button", name=re.compile(r"^\s*$")).count()
    assert nameless == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], str]]]:
    """Starts `mixer teach photos -m cifar10`; gives the process and the page's address."""
    pytest.importorskip("starlette", reason="NOT RUN: needs the extra serve")
    started: list[subprocess.Popen[str]] = []

    def begin() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "mixer_mlx", "teach", "photos", "-m", "cifar10", "-q"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "MIXER_MLX_CACHE": str(tmp_path / "cache")},
        )
        started.append(process)
        assert process.stdout
        return process, process.stdout.readline().strip()

    yield begin
    for process in started:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        assert process.stdout
        process.stdout.close()


def test_save_train_stop_resume_export_and_a_killed_server(
    start: Callable[[], tuple[subprocess.Popen[str], str]], visit: Open, tmp_path: Path
) -> None:
    photos_of_two(tmp_path / "photos", 8)
    process, address = start()
    page = visit(address, calm=False)  # the server is killed in between
    page.get_by_role("button", name="Save").click()
    model = tmp_path / "photos-taught" / "model-1"
    _expect(page.locator("#saved")).to_have_text(f"mixer predict IMAGE -m {model}")
    for name in ("frog", "ship"):
        assert _predicted(FILES / name / "0013.jpg", str(model))[0][0] == name
    page.get_by_label("Format").select_option("jax")
    page.get_by_role("button", name="Export").click()
    _expect(page.locator("#status")).to_have_text(f"Wrote {model}.npz.")

    page.get_by_role("spinbutton").fill("40")
    page.get_by_role("button", name="Train").click()
    _expect(page.get_by_role("img", name="Loss by step")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    resume = page.get_by_role("button", name="Resume")
    _expect(resume).to_be_visible()
    _expect(page.locator("#run")).to_contain_text("is saved")
    process.kill()
    process.wait()
    _expect(page.locator("#status")).to_contain_text("doesn't answer")

    _, address = start()
    again = visit(address)
    for name in ("frog", "ship"):
        _expect(_card(again, name)).to_contain_text("8 images")
    _expect(again.locator("#export-model option")).to_have_count(2)
    again.get_by_role("button", name="Resume").click()
    report = again.get_by_role("link", name="Report")
    _expect(report).to_be_visible()
    with again.context.expect_page() as opened:
        report.click()
    _expect(opened.value.get_by_role("heading", level=1)).to_contain_text("run-1")
    run = tmp_path / "photos-taught" / "run-1"
    assert _predicted(FILES / "ship" / "0013.jpg", str(run))[0][0] == "ship"
