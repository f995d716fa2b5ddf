"""The reference is whole: everything public has a docstring, and pdoc can make pages of them."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mixer_mlx

ROOT = Path(__file__).parents[1]
# What CONTRIBUTING.md builds.
MODULES = [
    f"mixer_mlx{name}"
    for name in ("", ".analysis", ".benchmark", ".choices", ".convert", ".data", ".errors")
] + [f"mixer_mlx.{name}" for name in ("features", "inference", "training")]


def test_functions_and_classes_have_docstrings() -> None:
    missing = []
    for room in ("mixer_mlx", "convert"):
        for path in sorted((ROOT / room).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith(("mixer_mlx/cli/", "mixer_mlx/convert/")):
                continue
            tree = ast.parse(path.read_text("utf-8"))
            missing += [name] if tree.body and not ast.get_docstring(tree) else []
            for node in tree.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                    missing += [] if ast.get_docstring(node) else [f"{name}: {node.name}"]
    assert missing == []


@pytest.mark.parametrize("name", mixer_mlx.__all__)
def test_members_of_exported_classes_have_docstrings(name: str) -> None:
    exported = getattr(mixer_mlx, name)
    if not inspect.isclass(exported):
        return
    for member, value in vars(exported).items():
        if member[0] != "_" and (inspect.isroutine(value) or isinstance(value, property)):
            assert inspect.getdoc(value), f"{name}.{member}"


def test_the_reference_is_made_from_docstrings(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="NOT RUN: needs the extra `docs`")
    command = [
        "-W",
        "error",
        "-m",
        "pdoc",
        "-o",
        str(tmp_path),
        *MODULES,
        "!mixer_mlx.convert.export",
    ]
    for module in MODULES:
        assert f" {module} " in (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    run = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    page = (tmp_path / "mixer_mlx.html").read_text("utf-8")
    assert [name for name in mixer_mlx.__all__ if f'<section id="{name}">' not in page] == []
    for module in MODULES[1:]:
        assert (tmp_path / (module.replace(".", "/") + ".html")).exists()
