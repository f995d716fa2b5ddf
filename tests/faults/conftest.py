"""`record` notes what a test did, for docs/reliability.md, where RELIABILITY_OUT names a file."""

import json
import os
import platform
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from faults.strace import Record


@pytest.fixture(scope="session")
def _rows() -> Iterator[dict[str, dict[str, object]]]:
    rows: dict[str, dict[str, object]] = {}
    yield rows
    if out := os.environ.get("RELIABILITY_OUT"):
        path = Path(out)
        kept = {row["test"]: row for row in json.loads(path.read_text())} if path.exists() else {}
        path.write_text(json.dumps(list({**kept, **rows}.values()), indent=1) + "\n")


@pytest.fixture
def record(_rows: dict[str, dict[str, object]], request: pytest.FixtureRequest) -> Iterator[Record]:
    """record(test, outcome) counts one try; the rows are kept if the test passes."""
    outcomes: dict[str, Counter[str]] = {}
    seeds: dict[str, int | None] = {}
    started = time.monotonic()
    failed = request.session.testsfailed

    def count(test: str, outcome: str, seed: int | None = None) -> None:
        outcomes.setdefault(test, Counter())[outcome] += 1
        seeds[test] = seed

    yield count
    if request.session.testsfailed > failed:
        return
    for test, counted in outcomes.items():
        _rows[test] = {
            "test": test,
            "count": counted.total(),
            "seed": seeds[test],
            "date": date.today().isoformat(),
            "seconds": round(time.monotonic() - started, 1),
            "system": f"{platform.system()} {platform.machine()}, "
            f"Python {platform.python_version()}",
            "outcomes": dict(sorted(counted.items())),
            "findings": [],
        }
