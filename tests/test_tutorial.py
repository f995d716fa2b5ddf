"""docs/tutorial.md: each of its commands runs, and makes the images it shows."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    spec = importlib.util.spec_from_file_location("tutorial", ROOT / "scripts" / "tutorial.py")
    assert spec
    assert spec.loader
    tutorial = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tutorial)
    page = tutorial.PAGE.read_text("utf-8")
    shorter = page.replace("-o my-model\n", "-o my-model --epochs 1\n", 1)
    assert shorter != page
    printed = tutorial.run(shorter, tmp_path)
    commands = [line for line in page.splitlines() if line.startswith("    $ ")]
    assert printed.count("\n    $ ") == len(commands) == 8
    assert "birds/07.jpg  birds/21.jpg (the same file)" in printed
    assert printed.count("labels in doubt: ") == page.count("labels in doubt: ") == 1
    names = set(tutorial.images(page)) - {"report.png"}
    assert names == {path.name for path in tmp_path.rglob("*.png")}
    assert {path.name for path in (ROOT / "docs" / "tutorial").iterdir()} == {*names, "report.png"}
