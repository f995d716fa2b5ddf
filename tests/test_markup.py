"""What notebooks and reprs show."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mixer_mlx
from mixer_mlx import ImageError, LazyImage, Prediction, Result, Results
from mixer_mlx.features.embed import Embedder


class Page(HTMLParser):
    """The elements of some HTML, all of which must be closed."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(markup)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def pictures(self) -> list[Image.Image]:
        urls = [str(attrs["src"]) for tag, attrs in self.tags if tag == "img"]
        return [Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) for url in urls]


PREDICTIONS = (Prediction(3, "cat", 0.957), Prediction(5, "<b>dog</b>", 0.006))


def page(result: Result | Results) -> Page:
    return Page(result._repr_html_())


def test_a_result_is_a_thumbnail_and_bars(cat: Path) -> None:
    shown = page(Result(str(cat), PREDICTIONS))
    assert shown.texts == ["cat.png", "cat", "95.7%", "<b>dog</b>", "0.6%"]
    widths = re.findall(r"width:([\d.]+%)", Result(str(cat), PREDICTIONS)._repr_html_())
    assert widths == ["95.7%", "0.6%"]
    (small,) = shown.pictures()
    assert max(small.size) == 160
    with Image.open(cat) as image:
        assert small.width / small.height == pytest.approx(image.width / image.height, abs=0.02)


@pytest.mark.parametrize("form", ["path", "PIL", "array", "file", "lazy"])
def test_every_form_of_image_has_a_thumbnail(form: str, cat: Path) -> None:
    with Image.open(cat) as opened:
        image = opened.convert("RGB")
    forms = {
        "path": cat,
        "PIL": image,
        "array": np.array(image),
        "file": io.BytesIO(cat.read_bytes()),
        "lazy": LazyImage("a.zip/cat.png", cat.read_bytes),
    }
    (small,) = page(Result(forms[form], PREDICTIONS)).pictures()
    expected = np.array(image.resize(small.size, Image.Resampling.LANCZOS), int)
    assert np.abs(np.array(small.convert("RGB"), int) - expected).mean() < 8


def test_what_cannot_be_shown_has_no_thumbnail(tmp_path: Path) -> None:
    closed = io.BytesIO(b"x")
    closed.close()

    def fetch() -> bytes:
        raise AssertionError("a repr doesn't use the network")

    for image in (tmp_path / "gone.png", closed, LazyImage("https://a.b/c.png", fetch)):
        shown = page(Result(image, PREDICTIONS))
        assert not shown.pictures()
        assert "95.7%" in shown.texts


def test_an_error_is_shown_and_nothing_of_a_name_is_markup() -> None:
    name = 'a/<script>\x1b[31m".png'
    shown = page(Result(name, error=ImageError("There is no such file; check the path.")))
    assert {tag for tag, _ in shown.tags} == {"div"}
    assert "".join(shown.texts).startswith('<script>\ufffd[31m".png')
    assert "There is no such file; check the path." in shown.texts


def test_results_show_the_first_sixty() -> None:
    results = Results([Result(np.zeros((4, 4, 3), np.uint8), PREDICTIONS)] * 62)
    shown = page(results)
    assert len(shown.pictures()) == 60
    assert shown.texts[-1] == "and 2 more"
    assert isinstance(results, list)
    assert page(Results()).texts == []


def test_reprs() -> None:
    classifier = mixer_mlx.load("cifar10", device="cpu", dtype="float32")
    assert repr(classifier) == "Classifier(cifar10, 1.1 M parameters, 10 classes, cpu float32)"
    embedder = Embedder(classifier.model, classifier.info, classifier.device)
    assert repr(embedder) == "Embedder(cifar10, 1.1 M parameters, pre-logits, cpu float32)"
    shown = repr(classifier.model)
    for line in (
        "MlpMixer(image_size=(32, 32), num_parameters=1,132,170",
        "(stem): PatchEmbedding(in_channels=3, dim=128, patch_size=4)",
        "(token_mixing): MlpBlock(gelu",
        "(fc1): TokenLinear(input_dims=64, output_dims=64, bias=True)",
        "(fc2): ChannelLinear(input_dims=512, output_dims=128, bias=True)",
    ):
        assert line in shown


def test_progress_is_shown_only_when_asked(cat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier = mixer_mlx.load("cifar10", device="cpu")
    names = [str(cat), "missing.png"]
    silent = list(classifier.predict(names))
    assert capsys.readouterr() == ("", "")
    asked = list(classifier.predict(names, progress=True))
    out, err = capsys.readouterr()
    assert (out, "2/2" in err) == ("", True)
    assert [result.predictions for result in asked] == [result.predictions for result in silent]
    list(classifier.predict(iter(names), progress=True))
    assert "2 images" in capsys.readouterr().err
