"""The library's messages speak of Python; the command line puts its options in their place."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from mixer_mlx.cli.commands import application
from mixer_mlx.cli.terminal.arguments import _SPELLINGS, as_options

ROOT = Path(__file__).parents[1]
# A style sheet, and pages and descriptions that quote a command on purpose.
NOT_MESSAGES = {
    "convert/export/card.py",
    "mixer_mlx/analysis/report.py",
    "mixer_mlx/training/pages.py",
    "mixer_mlx/training/recipes.py",
}
OPTION = re.compile(r"(?<![\w%)}-])--?[a-z][\w-]*|`mixer ")


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """All text in a file but docstrings."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):  # f"--{name}" has no constant with the whole option
            parts = [part.value if isinstance(part, ast.Constant) else "x" for part in node.values]
            yield node.lineno, "".join(map(str, parts))


def library() -> Iterator[tuple[str, ast.Module]]:
    for room in ("mixer_mlx", "convert"):
        for path in sorted((ROOT / room).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(("mixer_mlx/cli/", "mixer_mlx/convert/")):
                yield name, ast.parse(path.read_text("utf-8"))


def test_no_message_of_the_library_names_an_option() -> None:
    assert OPTION.search("f(--force)")
    assert OPTION.search("batches (-b)")
    found = [
        f"{name}:{line}: {text}"
        for name, tree in library()
        if name not in NOT_MESSAGES
        for line, text in strings(tree)
        if OPTION.search(text)
    ]
    assert found == []


def test_every_argument_that_is_spelt_as_an_option_is_named_somewhere() -> None:
    said = [text for _, tree in library() for _, text in strings(tree)]
    for name in _SPELLINGS:
        before = name.partition("{}")[0].replace("NAME", "x")
        assert any(re.search(rf"`({re.escape(before)}|x\b|Columns\(x=)", t) for t in said), name


def test_every_option_exists() -> None:
    commands = typer.main.get_command(application()).commands  # type: ignore[attr-defined]
    options = {o for c in commands.values() for p in c.params for o in p.opts}
    for spelling in _SPELLINGS.values():
        for option in re.findall(r"(?<!\w)--?[a-z][\w-]*", spelling):
            assert option in options, spelling
        for command in re.findall(r"`mixer ([\w-]+)", spelling):
            assert command in commands, spelling


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("overwrite it with `force=True`.", "overwrite it with --force."),
        ("(`val_split='my test'`)", "(--val-split 'my test')"),
        ("(`val_fraction=0.2`)", "(--val-fraction 0.2)"),
        ("run `load('hf://a/b')`.", "run `mixer convert hf://a/b OUT`."),
        ("a file called `x` or `it's`", "a file called `x` or `it's`"),
        ("`pool=odd value`", "--pool 'odd value'"),
    ],
)
def test_arguments_are_shown_as_options(said: str, shown: str) -> None:
    assert as_options(said) == shown
