"""Strict mypy sees a wrong call wherever it crosses from one file, or one room, into another."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLANTED = """
from mixer_mlx.convert import describe

from .terminal import output


def inside_the_room() -> None:
    output.write_record("no record", no_style=1)


def into_another_room() -> None:
    describe("cifar10", no_such_option=True)
"""


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    for room in ("mixer_mlx", "convert", "cli"):
        ignored = shutil.ignore_patterns("__pycache__", "models", "*.tsv")
        shutil.copytree(ROOT / room, tmp_path / room, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = Path("mixer_mlx", "cli", "planted.py")
    (tmp_path / planted).write_text(PLANTED)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", str(planted)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in run.stdout.splitlines() if "error:" in line]
    assert [line.split(": ")[0] for line in found if "[call-arg]" in line] == [
        f"{planted}:8",
        f"{planted}:12",
    ], run.stdout
    assert all(line.startswith(f"{planted}:") for line in found), run.stdout
