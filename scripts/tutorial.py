#!/usr/bin/env python3
"""Run docs/tutorial.md from top to bottom, in a folder of its own with the photos of examples/.

python scripts/tutorial.py             # prints the page with the output of its commands
python scripts/tutorial.py --write     # writes it, and the images it shows, into docs/
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from commands import written  # noqa: E402

PAGE = ROOT / "docs" / "tutorial.md"


def run(page: str, folder: Path) -> str:
    """The page as its commands print it in `folder`, where most of the images it shows are then."""
    for name in ("photos", "new"):
        shutil.copytree(ROOT / "examples" / name, folder / name)
    return written(page, folder, messages=True)


def images(page: str) -> list[str]:
    """The names of the images that the page shows, under docs/tutorial."""
    return re.findall(r"\]\(tutorial/([\w.-]+)\)", page)


def screenshot(folder: Path) -> None:
    """The run's report, by Chromium, as report.png."""
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=800,1900"]
    report = f"file://{folder}/my-model/report.html"
    command = ["chromium", *options, f"--screenshot={folder}/report.png", report]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="Write the page and its images.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = run(PAGE.read_text("utf-8"), Path(folder))
        if not asked.write:
            print(page)
            return
        screenshot(Path(folder))
        PAGE.write_text(page, "utf-8")
        (PAGE.parent / "tutorial").mkdir(exist_ok=True)
        for name in images(page):
            (made,) = Path(folder).rglob(name)
            shutil.copyfile(made, PAGE.parent / "tutorial" / name)


if __name__ == "__main__":
    main()
