"""A few damaged files for every parser; `scripts/fuzz --cases N` runs more."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz import driver
from fuzz.mutate import mutate, mutate_json, rng
from fuzz.target import Target
from fuzz.targets import TARGETS

from mixer_mlx.errors import ImageError

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz"
CASES = 200


@pytest.mark.parametrize("parser", TARGETS)
def test_every_case_gives_a_value_or_one_of_our_errors(parser: str) -> None:
    outcomes: Counter[str] = Counter()
    for _, outcome, finding in driver.run_cases(parser, 0, range(CASES)):
        assert finding is None
        outcomes[outcome] += 1
    # Damage that everything or nothing survives would test nothing.
    assert outcomes.total() == CASES
    assert 1 <= outcomes["value"] < CASES


@pytest.mark.parametrize("parser", TARGETS)
def test_a_case_is_made_from_seed_and_number_alone(parser: str) -> None:
    files = [driver.case(parser, 3, number) for number in range(20)]
    assert [driver.case(parser, 3, number) for number in reversed(range(20))] == files[::-1]
    assert len(set(files)) > 10
    assert [driver.case(parser, 4, number) for number in range(20)] != files


def test_mutations_leave_the_samples_alone() -> None:
    samples, values = [bytes(range(99)), b"other"], [{"a": [1, 2], "b": {"c": 1.5}}]
    changed = [mutate(rng(0, "x", number), samples) for number in range(500)]
    texts = [mutate_json(rng(0, "x", number), values) for number in range(500)]
    assert samples == [bytes(range(99)), b"other"]
    assert values == [{"a": [1, 2], "b": {"c": 1.5}}]
    assert len(set(changed)) > 400
    assert len(set(texts)) > 100


def spill(_: bytes, folder: Path) -> None:
    (folder.parent / "canary").touch()


FAULTS: dict[str, Callable[[bytes, Path], object]] = {
    "ZeroDivisionError in test_fuzz.py": lambda *_: 1 // 0,
    "SystemExit in test_fuzz.py": lambda *_: sys.exit(),
    "wrote to stderr": lambda *_: os.write(2, b"libtiff says"),
    "ImageError without a text": lambda *_: (_ for _ in ()).throw(ImageError()),
    "took too long": lambda *_: sum(range(10**7)),
    "wrote outside its folder": spill,
}


@pytest.mark.parametrize("kind", FAULTS)
def test_the_driver_finds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "bad", Target(lambda _: b"", FAULTS[kind]))
    monkeypatch.setattr(driver, "SECONDS", 0.04)
    [(number, outcome, finding)] = driver.run_cases("bad", 0, [7])
    assert (number, outcome) == (7, "finding")
    assert finding is not None
    assert finding.kind.startswith(kind)


# `scripts/fuzz` with a parser that dies, hangs and takes memory, and otherwise does nothing.
BAD_PARSER = """
import importlib.util, os, sys, time
from importlib.machinery import SourceFileLoader
loader = SourceFileLoader("fuzz_script", SCRIPT)
sys.modules["fuzz_script"] = module = importlib.util.module_from_spec(
    importlib.util.spec_from_loader("fuzz_script", loader))
loader.exec_module(module)
from fuzz import driver
from fuzz.target import Target
def run(data, folder):
    number = int(data)
    if number == 2: os.abort()
    if number == 4: time.sleep(60)
    if number == 6: bytearray(3 * 2**30)
driver.SECONDS = 0.15
driver.rng = lambda seed, parser, number: number
driver.TARGETS["bad"] = Target(lambda number: str(number).encode(), run)
if __name__ == "__main__":
    module.main()
"""


def test_the_script_survives_what_kills_a_parser(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(f"SCRIPT = {str(SCRIPT)!r}{BAD_PARSER}")
    command = [sys.executable, "bad.py", "--parser", "bad", "--cases", "8", "--save", "s"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert run.returncode == 1
    assert "bad case 2: process died (-6), 1 times" in run.stdout
    assert "bad case 4: timeout, 1 times" in run.stdout
    if sys.platform == "linux":
        assert "bad case 6: MemoryError" in run.stdout
    assert {path.name for path in (tmp_path / "s").iterdir()} >= {"bad-0-2", "bad-0-4"}
