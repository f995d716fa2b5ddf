"""The limits in docs/security.md are those of the code, and all of them."""

import ast
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

ROOT = Path(__file__).parents[1]
loader = SourceFileLoader("limits_script", str(ROOT / "scripts" / "limits"))
spec = importlib.util.spec_from_loader("limits_script", loader)
assert spec is not None
script = importlib.util.module_from_spec(spec)
sys.modules["limits_script"] = script  # where its dataclass looks for itself
loader.exec_module(script)

OTHER = {
    "convert.export.onnx.MAX_BYTES",  # of the format, for what is written
    "forward.MAX_BATCH_SIZE",
    "runtime.files.MAX_NAME_BYTES",  # of file systems
    "runtime.tuning.MAX_PART",
    "runtime.tuning.MAX_STREAMS",
    "runtime.tuning.MAX_TRAINING_PART",
    "analysis.certainty.MAX_DOUBTS",
    "analysis.report.MAX_CLASSES",
    "analysis.report.MAX_PAIRS",
    "convert.export.card.MAX_CLASSES",
    "convert.export.webpage.MAX_BYTES",
    "analysis.report.MAX_WRONG",
    "data.loader.MEMORY_BYTES",  # what is kept decoded, else decoded again
}
"""Bounds of work, not of what comes from elsewhere."""


def constants() -> set[str]:
    """The public constants of the code that are called limits."""
    found = set()
    for room, prefix in (("mixer_mlx", ""), ("convert", "convert."), ("cli", "cli.")):
        for path in (ROOT / room).rglob("*.py"):
            if path.relative_to(ROOT).parts[:2] in (("mixer_mlx", "convert"), ("mixer_mlx", "cli")):
                continue  # a link to a room
            module = prefix + ".".join(path.relative_to(ROOT / room).with_suffix("").parts)
            for node in ast.parse(path.read_text("utf-8")).body:
                targets = node.targets if isinstance(node, ast.Assign) else []
                for target in (n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)):
                    if target.id.startswith("MAX_") or target.id in (
                        *("DEADLINE", "TIMEOUT", "MEMORY_BYTES", "SILENCE_SECONDS"),
                    ):
                        found.add(f"{module}.{target.id}")
    return found


def test_the_table_is_the_codes() -> None:
    assert script.page() == script.PAGE.read_text("utf-8"), "run scripts/limits --write"


def test_no_limit_is_missing() -> None:
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    missing = {name for name in constants() if f"`{name}`" not in page}
    assert missing == OTHER, "add it to scripts/limits, or to OTHER if it bounds no input"
