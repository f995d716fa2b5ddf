"""Type checkers see wrong calls: ours, from one file or room into another, and a user's."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mixer_mlx

ROOT = Path(__file__).parents[1]
PLANTED = """
import mixer_mlx
from mixer_mlx.convert import describe

from .terminal import output


def inside_the_room() -> None:
    output.write_record("no record", no_style=1)


def into_another_room() -> None:
    describe("cifar10", no_such_option=True)


def into_the_package() -> None:
    mixer_mlx.load("cifar10", no_such_option=True)
"""


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    for room in ("mixer_mlx", "convert", "cli"):
        ignored = shutil.ignore_patterns("__pycache__", "models", "*.tsv")
        shutil.copytree(ROOT / room, tmp_path / room, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = Path("mixer_mlx", "cli", "planted.py")
    (tmp_path / planted).write_text(PLANTED)
    run = subprocess.run(
        # Neither libraries' types nor errors elsewhere matter here, and both take long.
        [
            *(sys.executable, "-m", "mypy", "--cache-dir", os.devnull, str(planted)),
            *("--no-site-packages", "--ignore-missing-imports", "--follow-imports=silent"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in run.stdout.splitlines() if "error:" in line]
    assert [line.split(": ")[0] for line in found if "[call-arg]" in line] == [
        f"{planted}:9",
        f"{planted}:13",
        f"{planted}:17",
    ], run.stdout
    assert all(line.startswith(f"{planted}:") for line in found), run.stdout


PROGRAMS = ROOT / "tests" / "typing"


def wrong_lines() -> list[str]:
    """The lines of the programs that a type checker must refuse."""
    lines = (PROGRAMS / "mistakes.py").read_text("utf-8").splitlines()
    return [f"mistakes.py:{i}" for i, line in enumerate(lines, 1) if line.endswith("# wrong")]


def test_mypy_checks_programs_that_use_the_package() -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--config-file="),
            *("--cache-dir", str(ROOT / ".mypy_cache" / "programs")),
            *("--strict", "--follow-imports=silent", "correct.py", "mistakes.py"),
        ],
        cwd=PROGRAMS,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line.split(": ")[0] for line in run.stdout.splitlines() if ": error:" in line]
    assert list(dict.fromkeys(found)) == wrong_lines(), run.stdout + run.stderr


def test_pyright_checks_programs_that_use_the_package() -> None:
    pytest.importorskip("pyright", reason="NOT RUN: needs the extra `pyright`")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--pythonpath", sys.executable),
            *("--outputjson", "--project", str(PROGRAMS)),
        ],
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [
        f"{Path(error['file']).name}:{error['range']['start']['line'] + 1}"
        for error in json.loads(run.stdout)["generalDiagnostics"]
    ]
    assert sorted(set(found), key=found.index) == wrong_lines(), run.stdout


def test_type_checkers_see_the_names_that_the_package_exports() -> None:
    tree = ast.parse((ROOT / "mixer_mlx" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for line in block.body:
        assert isinstance(line, ast.ImportFrom)
        module = f"mixer_mlx.{line.module}" if line.level else str(line.module)
        seen |= {alias.asname: module for alias in line.names if alias.asname == alias.name}
    assert sorted(map(str, seen)) == mixer_mlx.__all__ == dir(mixer_mlx)
    for name, module in seen.items():
        assert getattr(mixer_mlx, str(name)) is getattr(sys.modules[module], str(name))
