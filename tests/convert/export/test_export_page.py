"""The table of docs/export.md, row by row, and the page's code."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "export.md").read_text("utf-8")
spec = importlib.util.spec_from_file_location("export_table", ROOT / "scripts" / "export_table.py")
assert spec is not None
assert spec.loader is not None
script = importlib.util.module_from_spec(spec)
sys.modules["export_table"] = script  # where its dataclass looks for itself
spec.loader.exec_module(script)

NEEDS = {"ONNX Runtime": ("onnx", "onnxruntime"), "NumPy": ("coremltools",), "Core AI": ("coreai",)}


@pytest.mark.parametrize(
    "name",
    [script.MODELS[0], *(pytest.param(m, marks=pytest.mark.slow) for m in script.MODELS[1:])],
)
@pytest.mark.parametrize("row", script.ROWS, ids=lambda row: f"{row.format}{row.flags}")
def test_the_table_says_what_is_measured(tmp_path: Path, name: str, row: Any) -> None:
    for package in NEEDS[row.runtime]:
        pytest.importorskip(package, reason=f"NOT RUN: needs {package}")
    size, _, difference = script.measure(row, *script.model(name), tmp_path)
    start, end = script.line(name, row, size, 0, 1).split("0.0 | 1.0e+00")
    said = re.search(re.escape(start) + r"[\d.]+ \| (\S+)" + re.escape(end), PAGE)
    assert said, f"{start}: run scripts/export_table.py --write"
    assert difference < 3 * float(said[1])


def test_the_table_has_no_other_rows() -> None:
    table = PAGE.split(script.BEGIN)[1].split(script.END)[0].strip().splitlines()
    assert table[0] == script.HEAD
    assert len(table) - 2 == len(script.MODELS) * len(script.ROWS)


def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"NOT RUN: needs {package}")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len(blocks) == 2
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr, run.stdout) == (0, "", "cat\n")
