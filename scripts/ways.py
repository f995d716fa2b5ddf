#!/usr/bin/env python3
"""The ways through the house: which files a command enters, in the order in which it does.

    python scripts/ways.py             # prints the lists
    python scripts/ways.py --write     # puts them into docs/architecture.md

A file is entered when one of its functions runs, in any thread; what only runs while a module is
imported doesn't count.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- ways -->", "<!-- end of ways -->"
CAT = str(ROOT / "examples" / "cat.png")

TRACER = """
import os, sys, threading

FUNCTION = 1  # a flag of code that is neither a module's nor a class's
entered = {}

def note(frame, event, argument):
    name = frame.f_code.co_filename
    if event != "call" or not frame.f_code.co_flags & FUNCTION or name in entered:
        return
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename != "<string>":
            return  # while a module is imported
        frame = frame.f_back
    entered[name] = None

sys.setprofile(note)
threading.setprofile(note)
from mixer_mlx.cli.main import main
try:
    main()
finally:
    sys.setprofile(None)
    with open(os.environ["ENTERED"], "w") as file:
        file.write("\\n".join(entered))
"""


def entered(arguments: Sequence[str], folder: Path) -> list[str]:
    """The files of the three rooms that `mixer ARGUMENTS` enters, in order."""
    record = folder / "entered"
    subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", TRACER, *arguments],
        check=True,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "MIXER_MLX_CACHE": str(folder / "cache"), "ENTERED": str(record)},
    )
    names = [Path(name).resolve() for name in record.read_text().splitlines()]
    rooms = [ROOT / room for room in ("cli", "convert", "mixer_mlx")]
    return [str(n.relative_to(ROOT)) for n in names if any(map(n.is_relative_to, rooms))]


def ways(folder: Path) -> dict[str, list[str]]:
    """Command -> files."""
    for name in ("cat", "dog"):
        for i in range(3):
            target = folder / "photos" / name / f"{i}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([i, name == "cat"]).integers(
                0, 256, (32, 32, 3), np.uint8
            )
            Image.fromarray(noise).save(target)
    fine_tune = ["fine-tune", "photos", "-m", "cifar10", "-o", "run", "--steps", "2"]
    commands = {
        "mixer predict cat.png": ["predict", CAT, "-m", "cifar10"],
        "mixer fine-tune photos/ --steps 2": fine_tune,
        "mixer convert weights.npz model": [
            *("convert", str(ROOT / "tests" / "golden" / "jax_square.npz"), "model")
        ],
    }
    return {name: entered(arguments, folder) for name, arguments in commands.items()}


def text(found: dict[str, list[str]]) -> str:
    """The lists for the page."""
    lines = []
    for command, files in found.items():
        lines += [f"`{command}` enters {len(files)} files:", ""]
        lines += [f"    {line}" for line in _wrapped(files)]
        lines += [""]
    return "\n".join(lines)


def _wrapped(files: Sequence[str], width: int = 96) -> list[str]:
    lines = [""]
    for name in files:
        if len(lines[-1]) + len(name) + 4 > width:
            lines.append("")
        lines[-1] += f"{' > ' if lines[-1] else ''}{name}"
    return lines


def main() -> None:
    """Print the ways, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shown = text(ways(Path(folder)))
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n\n{shown}\n{END}{after}", encoding="utf-8")
    else:
        print(shown)


if __name__ == "__main__":
    main()
