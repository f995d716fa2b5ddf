"""Pages with commands, and below each what it prints."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def written(
    page: str,
    folder: Path,
    *,
    messages: bool = False,
    runs: Callable[[str], bool] = lambda command: True,
) -> str:
    """The page with the output of each "    $ command" as the command prints it now, in `folder`.

    `messages` shows stderr, too, in its place. Commands that `runs` refuses stay as they are.
    Raises CalledProcessError if a command fails.
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def block(found: re.Match[str]) -> str:
        command = found[1]
        if not runs(command):
            return found[0]
        run = subprocess.run(  # noqa: S602  # commands of our own pages
            command,
            shell=True,
            cwd=folder,
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if messages else subprocess.PIPE,
            text=True,
            check=True,
        )
        lines = "".join(f"    {line}".rstrip() + "\n" for line in run.stdout.splitlines())
        return f"    $ {command}\n{lines}"

    return re.sub(r"^    \$ (.*)\n(?:\n*    (?!\$ ).*\n)*", block, page, flags=re.M)
