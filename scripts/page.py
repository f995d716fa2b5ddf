"""Run the Python blocks of a page of docs/, in order, in one process: page.py docs/serving.md."""

import re
import sys
from pathlib import Path


def blocks(page: Path) -> list[str]:
    """The Python on a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    exec("\n".join(blocks(Path(sys.argv[1]))))  # noqa: S102  # our own pages
