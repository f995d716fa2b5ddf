"""docs/reliability.md is what scripts/reliability makes of the committed results."""

import json
import subprocess
import sys
from pathlib import Path

import growth
import pytest
from fuzz.archives import TARGETS as ARCHIVES
from fuzz.images import IMAGES
from fuzz.texts import TARGETS as TEXTS
from fuzz.weights import TARGETS as WEIGHTS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "reliability"


def test_the_page_is_made_of_the_results() -> None:
    command = [sys.executable, ROOT / "scripts" / "reliability", "--check"]
    assert subprocess.run(command).returncode == 0


def test_every_parser_has_a_result() -> None:
    rows = {row["test"]: row for row in json.loads((RESULTS / "fuzz.json").read_text("utf-8"))}
    parsers = [*IMAGES, *ARCHIVES, *WEIGHTS, *TEXTS, "pth in PyTorch"]
    assert set(rows) >= {f"fuzz {parser}" for parser in parsers}


def test_growth_is_what_the_code_does(tmp_path: Path) -> None:
    rows = json.loads((RESULTS / "growth.json").read_text("utf-8"))
    assert [row["1000"] for row in rows] == [
        growth.pairs_compared(growth.greys(1000, alike=False)),
        growth.pairs_compared(growth.greys(1000, alike=True)),
        growth.images_read(1000, tmp_path / "out").total(),
        growth.labels_seen(1000),
        growth.lines_drawn(1000),
    ]


@pytest.mark.parametrize("name", ["fuzz.json", "faults.json"])
def test_outcomes_add_up(name: str) -> None:
    for row in json.loads((RESULTS / name).read_text("utf-8")):
        assert sum(row["outcomes"].values()) == row["count"] > 0
