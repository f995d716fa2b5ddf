"""What the documents say is what happens."""

import importlib.util
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from mixer_mlx import __version__
from mixer_mlx.catalog import CATALOG
from mixer_mlx.cli.commands import application
from mixer_mlx.cli.overview import GROUPS

ROOT = Path(__file__).parents[1]
SETUP = [
    "python3 -m venv .venv && .venv/bin/pip install -e '.[cpu]' "
    "&& .venv/bin/mixer predict examples/cat.png -m cifar10",
    "python3 -m venv .venv && .venv/bin/pip install -e '.[cpu,dev]' && .venv/bin/pytest",
]


def printed_by(page: str) -> str:
    """Run a page's code in one process, where nothing may be said on stderr."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "scripts/page.py", f"docs/{page}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("python.md", ["(1, 10) (1, 128) 8 (1, 64, 128)", "(2, 512)", "('beagle', 'pug')"]),
        ("training.md", ["1.0 1.0", "24 done"]),
        ("own-loop.md", ["10 classes", "'own, compiled': "]),
        ("serving.md", ["'batched': "]),
        ("quantization.md", ["cat\nFalse\n"]),
        ("threads.md", ["8 True\nTrue"]),
    ],
)
def test_pages_run(page: str, says: list[str]) -> None:
    printed = printed_by(page)
    for text in says:
        assert text in printed


def test_every_page_with_python_is_run() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md") if "```python" in path.read_text()}
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert {page for page in pages if f'"{page}"' not in tests} == set()


def test_readme_commands_are_those_that_ci_runs() -> None:
    lines = [line.strip() for line in (ROOT / "README.md").read_text("utf-8").splitlines()]
    assert [line for line in lines if line.startswith("python3 -m venv")] == SETUP
    assert SETUP[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_readme_shows_what_the_model_says(mixer_output: str) -> None:
    assert mixer_output in (ROOT / "README.md").read_text("utf-8").replace("\n    ", "\n")


@pytest.fixture
def mixer_output() -> str:
    run = subprocess.run(
        [sys.executable, "-m", "mixer_mlx", "predict", "examples/cat.png", "-m", "cifar10"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


def test_figures_of_the_built_in_model() -> None:
    """Its page's confusion matrix, its card and the catalogue say the same."""
    page = (ROOT / "docs" / "cifar10.md").read_text("utf-8")
    rows = re.findall(r"^\| (\w+) \|((?: \d+ \|){10})$", page, re.M)
    counts = [[int(cell) for cell in row.split("|")[:-1]] for _, row in rows]
    assert [sum(row) for row in counts] == [1000] * 10
    right = sum(counts[i][i] for i in range(10))
    top1 = CATALOG["cifar10"].top1
    assert right / 100 == pytest.approx(top1)
    card = (ROOT / "mixer_mlx" / "models" / "cifar10" / "README.md").read_text("utf-8")
    for text in (page, card):
        assert f"{top1:.2f} %" in text
    for i, (name, _) in enumerate(rows):
        assert f"{name} {counts[i][i] / 10:.1f}" in card


def test_every_command_is_documented_in_the_order_of_the_overview() -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    commands = [command for group in GROUPS.values() for command in group]
    assert re.findall(r"^## mixer (.*)$", page, re.M) == commands


def test_links_lead_somewhere() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_models_page_lists_every_model() -> None:
    spec = importlib.util.spec_from_file_location("models", ROOT / "scripts" / "models_table.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.PAGE.read_text("utf-8")
    assert script.models() in page, "run scripts/models_table.py --write --no-speed"
    assert {
        line.split(" | ")[0].strip("| ") for line in page.split("<!-- speeds -->")[1].splitlines()
    } > set(script.configs())


def test_readme_figures_are_those_of_the_catalogue() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert f"{len(CATALOG)} models are known by name" in text
    rows = re.findall(
        r"^\| `(\w+\.\w+)`[^|]*\| (\S+) \| (\S+) / (\S+) \| (\d+) MiB \|$", text, re.M
    )
    assert len(rows) == 4
    for name, *cells in rows:
        entry = CATALOG[name]
        mib = f"{entry.download_bytes / 2**20:.0f}"
        assert cells == [entry.config.variant_name, f"{entry.top1:g}", f"{entry.real:g}", mib]


def test_readme_quotes_the_tutorial_and_check() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    quoted = readme.split("<!-- from the tutorial -->\n")[1].split("<!-- end of")[0]
    check, *blocks = re.split(r"\n(?=    \$ )", quoted.rstrip("\n"))
    tutorial = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
    assert len(blocks) == 3
    for block in blocks:
        assert f"{block.rstrip()}\n" in tutorial, "quote docs/tutorial.md"
    command, *lines = textwrap.dedent(check).rstrip("\n").split("\n")
    run = subprocess.run(
        [sys.executable, "-m", "mixer_mlx", *command.split()[2:]],
        cwd=ROOT / "examples",
        capture_output=True,
        text=True,
        check=True,
    )
    assert lines == [line.rstrip() for line in run.stdout.splitlines()]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands_of(page: str) -> Iterator[str]:
    """A page's commands without placeholders: lines, without comments, and inline code."""
    lines = re.findall(r"^ *(?:\$ )?(mixer [a-z-]+ .*)$", page, re.M)
    lines += re.findall(r"`(mixer [a-z-]+ [^`]+)`", page.replace("\n", " "))
    for line in lines:
        command = re.split(r"\s+[#|>]\s", line)[0]
        if not re.search(r"[\[\]{]|\.\.\.|\b[A-Z]{3,}\b(?!\.)", command):
            yield command


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_commands_are_what_the_parser_takes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = get_command(application()).commands  # type: ignore[attr-defined]
    for line in commands_of(path.read_text("utf-8")):
        _, name, *arguments = shlex.split(line)
        for file in filter(Path.suffix.fget, map(Path, arguments)):  # type: ignore[attr-defined]
            if not file.is_absolute() and ":" not in str(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
        assert name in commands, line
        try:
            commands[name].make_context(name, arguments)
        except Exception as error:
            if type(error).__name__ != "MissingParameter":  # a mention
                raise AssertionError(line) from error


def test_citation_has_this_version() -> None:
    lines = (ROOT / "CITATION.cff").read_text("utf-8").splitlines()
    assert f"version: {__version__}" in lines


def test_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    names = {path.name for path in PAGES} - {"README.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == names
