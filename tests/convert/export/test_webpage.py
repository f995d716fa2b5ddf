"""Pages that classify: what is in them, and in a browser the answers of `Classifier`."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import PATIENCE, browsing
from exported import random_model
from PIL import Image

import mixer_mlx
from mixer_mlx import Classifier, ConfigError, MixerConfig, Preprocess, save
from mixer_mlx.convert import ExportOptions, export
from mixer_mlx.convert.export import webpage

pytest.importorskip("onnx", reason="NOT RUN: needs the extra onnx")

LABELS = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "a & b", "d", "e")
GREY = MixerConfig(
    image_size=(24, 40),
    patch_size=8,
    in_channels=1,
    num_blocks=2,
    hidden_dim=16,
    tokens_mlp_dim=12,
    channels_mlp_dim=24,
    num_classes=5,
)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model for grey images that aren't square, whose names are out to harm."""
    model, info = random_model(GREY)
    preprocess = Preprocess((24, 40), "shorter", 0.8, "bilinear", (0.4,), (0.3,))
    folder = tmp_path_factory.mktemp("grey") / "grey"
    source = {"name": "<b>&\"'$title"}
    save(folder, model, info.replace(preprocess=preprocess, labels=LABELS, source=source))
    return folder


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A stand-in for the runtime's folder, for what doesn't need a browser."""
    folder = tmp_path / "onnxruntime-web" / "dist"
    folder.mkdir(parents=True)
    (folder / webpage.SCRIPT).write_text("var a,b;export{a as env,b as Tensor};\n//# map=x\n")
    (folder / webpage.WASM).write_bytes(b"\0asm")
    return folder.parent


def test_nothing_but_its_own_script_may_run(grey: Path, tmp_path: Path, runtime: Path) -> None:
    out = tmp_path / "page.html"
    export(grey, out, format="html", options=ExportOptions(runtime=runtime))
    text = out.read_text("utf-8")
    scripts = re.findall(r"<script type=\"module\">(.*?)</script>", text, re.S)
    assert len(scripts) == 1
    assert text.count("<script") == text.count("</script>") == 4
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[0]
    assert f"script-src 'sha256-{digest}' 'wasm-unsafe-eval';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe-inline" not in policy
    assert "const ort={env:a,Tensor:b};" in scripts[0]
    assert "&lt;b&gt;&amp;&quot;&#x27;$title</h1>" in text
    info = json.loads(re.findall(r'id="info">(.*?)</script>', text)[0])
    assert tuple(info["labels"]) == LABELS


def test_refusals(
    grey: Path, tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "page.html"

    def refused(match: str, model: Path | str = grey, folder: Path | None = runtime) -> None:
        with pytest.raises(ConfigError, match=match):
            export(model, out, format="html", options=ExportOptions(runtime=folder))
        assert not out.exists()

    refused("run `npm install onnxruntime-web`", folder=tmp_path)
    model, info = random_model(GREY.replace(num_classes=0))
    save(tmp_path / "headless", model, info)
    refused("needs a model with classes", tmp_path / "headless")
    with monkeypatch.context() as patch:
        patch.setattr(webpage, "MAX_BYTES", 2000)
        refused("more than the 0 that browsers open well")
    (runtime / "dist" / webpage.SCRIPT).write_text("something else")
    refused("isn't as in onnxruntime-web")


# In a browser

RUNTIME = Path(__file__).parents[3] / "node_modules" / "onnxruntime-web"
chromium = pytest.fixture(scope="module")(browsing)
Open = Callable[[Path], Any]


@pytest.fixture(scope="module")
def visit(chromium: Any) -> Iterator[Open]:
    """Opens a page from disk, without a network; it may neither complain nor ask for anything."""
    faults, asked = [], []
    context = chromium.new_context(offline=True)
    context.set_default_timeout(PATIENCE)

    def open_(path: Path) -> Any:
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda one: faults.append(one.text) if one.type == "error" else None)
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.get_by_text("Ready", exact=True).wait_for()
        return page

    yield open_
    context.close()
    assert not faults
    assert [url for url in asked if not url.startswith("file:///")] == []
    assert len([url for url in asked if not url.endswith(".html")]) == 0


def exported(model: str | Path, out: Path) -> Path:
    if not (RUNTIME / "dist" / webpage.WASM).is_file():
        pytest.skip("NOT RUN: needs `npm install --no-save onnxruntime-web` in the checkout")
    export(model, out, format="html", options=ExportOptions(runtime=RUNTIME))
    return out


def answers(page: Any, state: str) -> list[tuple[int, float]]:
    """(class, probability), most probable first, once the page shows this file's name."""
    page.locator("#state", has_text=state).wait_for()
    rows = page.locator("#answers li").evaluate_all(
        "rows => rows.map(row => [+row.dataset.index, +row.dataset.probability])"
    )
    return [(index, probability) for index, probability in rows]


def same(found: list[tuple[int, float]], classifier: Classifier, image: Path) -> None:
    expected = classifier(image, k=5)
    assert [index for index, _ in found] == [prediction.index for prediction in expected]
    np.testing.assert_allclose(
        [probability for _, probability in found],
        [prediction.probability for prediction in expected],
        atol=2e-3,
    )


@pytest.mark.browser
def test_answers_of_the_built_in_model(visit: Open, cat: Path, tmp_path: Path) -> None:
    page = visit(exported("cifar10", tmp_path / "cifar10.html"))
    classifier = mixer_mlx.load("cifar10", dtype="float32", device="cpu")
    with Image.open(cat) as image:
        large = image.convert("RGB").resize((397, 251))
    large.save(tmp_path / "large.png")
    turned = large.rotate(90, expand=True)
    turned.save(tmp_path / "turned.jpg", exif=_sideways(), quality=95)
    for path in (cat, tmp_path / "large.png", tmp_path / "turned.jpg"):
        page.locator("#file").set_input_files(path)
        same(answers(page, path.name), classifier, path)
    assert page.locator("#answers li").first.inner_text().startswith("cat")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    page.locator("#file").set_input_files(bad)
    assert answers(page, "isn't an image that the browser can read") == []


def _sideways() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    return exif


@pytest.mark.browser
def test_other_preprocessing_and_names_out_to_harm(
    visit: Open, grey: Path, cat: Path, tmp_path: Path
) -> None:
    page = visit(exported(grey, tmp_path / "grey.html"))
    classifier = mixer_mlx.load(grey, dtype="float32", device="cpu")
    with Image.open(cat) as image:
        for size in ((300, 180), (90, 301)):
            path = tmp_path / f"{size[0]}.png"
            image.convert("RGB").resize(size).save(path)
            page.locator("#file").set_input_files(path)
            found = answers(page, path.name)
            same(found, classifier, path)
    names = page.locator("#answers li span:first-child").all_inner_texts()
    assert names == [LABELS[index] for index, _ in found]
    data = base64.b64encode((tmp_path / "300.png").read_bytes()).decode()
    for event, transfer in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        page.evaluate(
            """([kind, transfer, data]) => {
                const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
                const held = new DataTransfer();
                held.items.add(new File([bytes], `${kind}.png`, { type: "image/png" }));
                const event = new Event(kind, { cancelable: true });
                event[transfer] = held;
                dispatchEvent(event);
            }""",
            [event, transfer, data],
        )
        same(answers(page, f"{event}.png"), classifier, tmp_path / "300.png")


@pytest.mark.browser
def test_the_camera(visit: Open, grey: Path, tmp_path: Path) -> None:
    page = visit(exported(grey, tmp_path / "camera.html"))
    page.locator("#camera").click()
    page.locator("#answers li").first.wait_for()
    assert len(answers(page, "Camera")) == 5
    page.locator("#camera", has_text="Stop").click()
    assert page.locator("#video").is_hidden()
