"""The page: its numbers, its escaping, and that it is self-contained."""

import base64
import io
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from analysis.report_page import Page
from PIL import Image

from mixer_mlx import MixerError
from mixer_mlx.analysis.evaluate import Outcome
from mixer_mlx.analysis.interval import wilson
from mixer_mlx.analysis.report import MAX_CLASSES, MAX_PAIRS, MAX_WRONG, Report, page, write


def draw(folder: Path, count: int, size: tuple[int, int] = (20, 10)) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [folder / f"{i:03}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
    return paths


def report(folder: Path, labels: int, targets: list[int], predicted: list[int]) -> Report:
    rng = np.random.default_rng(0)
    outcomes = [
        Outcome(t, p, 0.9 if t == p else 0.8, 0.1 if t == p else float(rng.uniform(2, 5)))
        for t, p in zip(targets, predicted, strict=True)
    ]
    paths = draw(folder, len(targets))
    return Report("run", [("top-1", "50 %")], [f"c{i}" for i in range(labels)], paths, outcomes)


def test_the_matrix_counts_as_numpy_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    targets, predicted = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    found = Page(page(report(tmp_path, 4, targets.tolist(), predicted.tolist()), tmp_path))
    expected = np.zeros((4, 4), int)
    np.add.at(expected, (targets, predicted), 1)
    head, *rows = found.tables["matrix"]
    assert head[1:] == ["c0", "c1", "c2", "c3"]
    assert [row[0] for row in rows] == head[1:]
    assert [[int(n.replace("·", "0")) for n in row[1:]] for row in rows] == expected.tolist()
    _, *classes = found.tables["classes"]
    accuracies = [float(row[3].rstrip("%")) for row in classes]
    assert accuracies == sorted(accuracies)
    for name, total, right, accuracy, interval in classes:
        i = int(name[1:])
        assert (int(total), int(right)) == (expected[i].sum(), expected[i, i])
        assert accuracy == f"{expected[i, i] / expected[i].sum():.1%}"
        low, high = wilson(expected[i, i], int(total))
        assert interval == f"{100 * low:.1f}-{high:.1%}"


def test_the_most_wrong_come_first_with_their_images(tmp_path: Path) -> None:
    made = report(tmp_path, 2, [0, 0, 1, 1] * 10, [0, 1, 0, 1] * 10)
    found = Page(page(made, tmp_path))
    wrong = [i for i, outcome in enumerate(made.outcomes) if not outcome.right]
    wrong.sort(key=lambda i: -made.outcomes[i].loss)
    assert len(found.figures) == min(MAX_WRONG, 20)
    assert [unquote(link) for link in found.links[::2]] == [f"{i:03}.png" for i in wrong]
    for caption, source, i in zip(found.figures, found.sources, wrong, strict=True):
        outcome = made.outcomes[i]
        assert caption.split() == [
            *(f"c{outcome.predicted}", "80.0%", "is", f"c{outcome.target}"),
            *(f"{np.exp(-outcome.loss):.1%}", f"{i:03}.png"),
        ]
        shown = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        with Image.open(made.entries[i]) as original:  # type: ignore[arg-type]
            assert np.array_equal(np.asarray(shown), np.asarray(original))


def test_many_classes_are_pairs(tmp_path: Path) -> None:
    targets = [i % 40 for i in range(80)]
    predicted = [(i + 1) % 40 if i < 45 else i % 40 for i in range(80)]
    found = Page(page(report(tmp_path, 40, targets, predicted), tmp_path))
    assert "matrix" not in found.tables
    _, *pairs = found.tables["pairs"]
    assert len(pairs) == MAX_PAIRS
    assert pairs[:5] == [[f"c{i}", f"c{i + 1}", "2 of 2"] for i in range(5)]
    assert pairs[5][2] == "1 of 2"


def test_of_thousands_of_classes_the_page_shows_the_worst(tmp_path: Path) -> None:
    targets = [i % 5000 for i in range(10_000)]
    predicted = [t if i < 5000 or t > 299 else 4999 - t for i, t in enumerate(targets)]
    made = report(tmp_path, 5000, [0], [0])
    pairs = zip(targets, predicted, strict=True)
    outcomes = [Outcome(t, p, 0.9, 0.1 if t == p else 5) for t, p in pairs]
    entries = [made.entries[0]] * len(outcomes)
    text = page(Report("run", [], made.labels, entries, outcomes), tmp_path)
    found = Page(text)
    assert len(found.tables["classes"]) == 1 + MAX_CLASSES
    assert found.tables["classes"][-1][1:3] == ["2", "1"]
    assert "The worst 200 of 5,000 classes:" in text
    assert "And 290 other pairs of classes." in text
    assert len(text) < 400_000


def test_a_model_of_many_classes_on_few(tmp_path: Path) -> None:
    found = Page(page(report(tmp_path, 1000, [7, 7, 9, 9], [7, 9, 9, 500]), tmp_path))
    assert found.tables["matrix"] == [
        ["true \\ predicted", "c7", "c9", "other"],
        ["c7", "1", "1", "·"],
        ["c9", "·", "1", "1"],
    ]


def test_nothing_is_wrong(tmp_path: Path) -> None:
    for labels in (2, 40):
        text = page(report(tmp_path, labels, [0, 1], [0, 1]), tmp_path)
        assert "No image was misclassified." in text
        assert Page(text).figures == []


EVIL = "<script>alert('1')</script>\"&\u202e\x1b[2J"


def test_names_do_nothing(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" & <c>#?%41'
    folder.mkdir()
    path = folder / "javascript:<img src=x onerror=alert(1)>.png"
    Image.new("RGB", (9, 9)).save(path, "PNG")
    made = Report(
        EVIL,
        [(EVIL, EVIL)],
        [EVIL, "</style>"],
        [path, path],
        [Outcome(0, 1, 0.7, 2), Outcome(1, 0, 0.6, 1)],
        details=[(EVIL, EVIL)],
    )
    text = page(made, folder)
    found = Page(text)
    shown = "<script>alert('1')</script>\"&\ufffd\ufffd[2J"
    assert found.facts == [shown, shown]
    assert found.tables["matrix"][0][1] == shown
    assert "\x1b" not in text
    assert "\u202e" not in text
    for link in found.links:
        assert urlsplit(link).scheme == ""
        assert (folder / unquote(link)).samefile(path)


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    made = report(tmp_path, 2, [0, 1], [1, 0])
    text = page(
        Report(
            "run",
            made.facts,
            made.labels,
            made.entries,
            made.outcomes,
            made.entries[0].read_bytes(),
        ),
        tmp_path,
    )
    found = Page(text)
    assert len(found.sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in found.sources)
    assert not re.search(r"https?:|@import|url\(|<script|<link", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_links_lead_to_the_images_from_where_the_page_is(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "runs" / "one").mkdir(parents=True)
    made = report(tmp_path / "images", 2, [0], [1])
    link = Page(page(made, tmp_path / "runs" / "one")).links[0]
    assert link == "../../images/000.png"


@pytest.mark.skipif(os.fsencode("\udcff") != b"\xff", reason="NOT RUN: names are no bytes here")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "\udcff.png"
    try:
        Image.new("RGB", (9, 9)).save(path)
    except OSError:
        pytest.skip("NOT RUN: the file system takes UTF-8 alone")
    made = Report("run", [], ["a", "b"], [path], [Outcome(0, 1, 0.7, 2)])
    write(tmp_path / "report.html", made)
    assert Page((tmp_path / "report.html").read_text("utf-8")).links[0] == "%FF.png"


def test_large_images_are_shrunk_and_lost_ones_named(tmp_path: Path) -> None:
    large, lost = tmp_path / "large.png", tmp_path / "lost.png"
    Image.new("RGB", (800, 400), "red").save(large)
    made = Report(
        "r", [], ["a", "b"], [large, lost], [Outcome(0, 1, 0.7, 2), Outcome(0, 1, 0.7, 1)]
    )
    found = Page(page(made, tmp_path))
    (source,) = found.sources
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as shown:
        assert shown.size == (160, 80)
    assert "lost.png" in found.figures[1]


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MixerError, match="can't be written"):
        write(tmp_path / "no" / "r.html", report(tmp_path, 2, [0], [0]))
