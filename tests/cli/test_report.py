"""`report.html`, from `mixer evaluate --report` and at the end of a run."""

import json
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from analysis.report_page import Page
from PIL import Image

from mixer_mlx import load

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def labelled(golden: Path, tmp_path: Path) -> Path:
    """The golden images in folders by class, and as many of noise, called dogs."""
    with np.load(golden / "timm_cifar10" / "expected.npz") as arrays:
        names = [str(path).split("/")[-2] for path in arrays["paths"]]
        images = arrays["pictures"]
    noise = np.random.default_rng(0).integers(0, 256, images.shape, np.uint8)
    names += ["dog"] * len(noise)
    for i, (name, image) in enumerate(zip(names, [*images, *noise], strict=True)):
        (tmp_path / "data" / name).mkdir(exist_ok=True, parents=True)
        Image.fromarray(image).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def test_the_report_agrees_with_predict(mixer, labelled: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (labelled / "cat" / "bad.png").write_text("no image")
    file = tmp_path / "report.html"
    run = mixer("evaluate", labelled, "-m", "cifar10", "--report", file, "--format", "json")
    assert run.code == 1, run.err
    shown = mixer("predict", labelled, "-m", "cifar10", "--exact", "--format", "json", "-k", 1)
    expected: Counter[tuple[str, str]] = Counter()
    wrong = set()
    for record in map(json.loads, shown.out.splitlines()):
        if "predictions" in record:
            true, found = Path(record["image"]).parent.name, record["predictions"][0]["label"]
            expected[true, found] += 1
            if true != found:
                wrong.add(record["image"])
    page = Page(file.read_text("utf-8"))
    head, *rows = page.tables["matrix"]
    assert head[1:] == CLASSES
    found = {
        (row[0], name): int(cell)
        for row in rows
        for name, cell in zip(CLASSES, row[1:], strict=True)
        if cell != "·"
    }
    assert found == expected
    links = {str((tmp_path / unquote(link)).resolve()) for link in page.links}
    assert links == {str(Path(name).resolve()) for name in wrong}
    top1 = json.loads(run.out)["top1"]
    assert top1 == sum(n for (a, b), n in expected.items() if a == b) / expected.total()
    assert any(fact.startswith(f"{top1:.2%} (") for fact in page.facts)
    assert f"{expected.total()} (1 unreadable)" in page.facts


def test_an_existing_file_is_left_alone(mixer, labelled: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "report.html"
    file.write_text("mine")
    command = ("evaluate", labelled, "-m", "cifar10", "--report")
    run = mixer(*command, file)
    assert run.code == 1
    assert "--force" in run.err
    assert file.read_text() == "mine"
    assert mixer(*command, tmp_path / "report.png").code == 1
    assert "doesn't exist; create it first" in mixer(*command, tmp_path / "no" / "r.html").err
    assert mixer(*command, file, "--force").code == 0
    assert Page(file.read_text("utf-8")).tables["matrix"]


def test_a_run_ends_with_a_report(mixer, labelled: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for name in CLASSES:  # two to train and one to validate, at least
        (labelled / name).mkdir(exist_ok=True)
        for i in range(3):
            Image.new("RGB", (32, 32), (10 * i, 40, 90)).save(labelled / name / f"more{i}.png")
    command = ("fine-tune", labelled, "-m", "cifar10", "--steps", 3, "-b", 8)
    run = mixer(*command, "-o", tmp_path / "run")
    assert run.code == 0, run.err
    page = Page((tmp_path / "run" / "report.html").read_text("utf-8"))
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    best = next(line for line in reversed(log) if line["event"] == "epoch" and line["best"])
    metrics = best[best["best"]]
    assert any(fact.startswith(f"{metrics['top1']:.2%} (") for fact in page.facts)
    assert f"{metrics['loss']:.4f} nats" in page.facts
    assert f"{metrics['images']}" in page.facts
    assert "mixer fine-tune, recipe quick" in page.facts
    assert any(fact.endswith(" GiB") for fact in page.facts)
    assert any(fact.startswith("0:00:") for fact in page.facts)
    calibration = json.loads((tmp_path / "run/best/config.json").read_text())["calibration"]
    assert calibration["images"] == metrics["images"]
    _, *rows = page.tables["matrix"]
    counts = [int(cell) for row in rows for cell in row[1:] if cell != "·"]
    assert sum(counts) == metrics["images"]
    assert len(page.sources) == 2 * len(page.figures) + 1  # with maps, and the curves
    classifier = load(str(tmp_path / "run"))
    for link, caption in zip(page.links[::2], page.figures, strict=True):
        (prediction,) = classifier(tmp_path / "run" / unquote(link), k=1)
        assert caption.split()[:2] == [prediction.label, f"{prediction.probability:.1%}"]


def test_a_run_without_a_report_and_what_is_said_of_its_classes(  # type: ignore[no-untyped-def]
    mixer, tmp_path: Path
) -> None:
    for name, count in (("few", 4), ("many", 60)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(count):
            colour = (i, 4 * i, 90 + count)
            Image.new("RGB", (32, 32), colour).save(tmp_path / f"data/{name}/{i}.png")
    command = ("fine-tune", tmp_path / "data", "-m", "cifar10", "--steps", 1, "-b", 4)
    run = mixer(*command, "-o", tmp_path / "run", "--no-report")
    assert run.code == 0, run.err
    assert not (tmp_path / "run" / "report.html").exists()
    assert "Classes with fewer than 10 training images: few (3)." in run.err
    assert "many has 48 images, few has 3; --balance compensates." in run.err
    balanced = mixer(*command, "-o", tmp_path / "run", "--force", "--balance", "loss")
    assert "--balance" not in balanced.err
    assert (tmp_path / "run" / "report.html").exists()
