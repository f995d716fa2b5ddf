"""Runs commands under strace, which makes one system call of theirs fail, or kills them there."""

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

CALLS = {
    "write": "write,pwrite64,writev,pwritev",
    "fsync": "fsync,fdatasync",
    "rename": "rename,renameat,renameat2",
    "mkdir": "mkdir,mkdirat",
    "unlink": "unlink,unlinkat,rmdir",
}
"""Kinds of system calls that change what is on the disk."""

Record = Callable[..., None]
"""The fixture `record` of conftest.py."""

MIXER = [sys.executable, "-m", "mixer_mlx"]


@dataclass(frozen=True)
class Run:
    """How a command ended. `counts` has the calls of each kind; `hit` whether one was made fail."""

    code: int
    err: str
    counts: dict[str, int]
    hit: bool


@functools.cache
def missing() -> str | None:
    """None where strace can do its work, otherwise what is missing."""
    if shutil.which("strace") is None:
        return "strace (Linux)"
    probe = ["strace", "-f", "-o", os.devnull, "-e", "inject=fsync:error=EIO:when=9", "true"]
    run = subprocess.run(probe, capture_output=True, text=True)
    return f"the right to use strace ({run.stderr.strip()})" if run.returncode else None


def run(arguments: Sequence[object], folder: Path, *injections: str) -> Run:
    """`mixer` with these arguments, in a folder. An injection is strace's, such as
    "write,pwrite64:error=EIO:when=3"; the count is that of each thread by itself."""
    with tempfile.NamedTemporaryFile("r", prefix="mixer-strace-") as log:
        command = ["strace", "-f", "-o", log.name, "-e", f"trace={','.join(CALLS.values())}"]
        for injection in injections:
            command += ["-e", f"inject={injection}"]
        done = subprocess.run(
            [*command, *MIXER, *map(str, arguments)],
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=60,
        )
        lines = log.read().splitlines()
    return Run(done.returncode, done.stderr, _counts(lines), any("(INJECTED)" in x for x in lines))


def environment(folder: Path) -> dict[str, str]:
    """As a user has it, but that Python writes no compiled modules."""
    return {**os.environ, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def _counts(lines: Sequence[str]) -> dict[str, int]:
    """For each kind of call, the most that any thread made of one of its system calls."""
    made: Counter[tuple[str, str]] = Counter()
    for line in lines:
        if match := re.match(r"(\d+) +(\w+)\(", line):
            made[match[1], match[2]] += 1
    kinds = {name: kind for kind, names in CALLS.items() for name in names.split(",")}
    most = dict.fromkeys(CALLS, 0)
    for (_, name), count in made.items():
        most[kinds[name]] = max(most[kinds[name]], count)
    return most


def injection(effect: str, kind: str, nth: int) -> str:
    """The nth call of a kind is where the process is killed (effect "kill"), or fails."""
    what = "signal=SIGKILL" if effect == "kill" else f"error={effect}"
    return f"{CALLS[kind]}:{what}:when={nth}"


ERRORS = {
    "write": ("ENOSPC", "EIO"),
    "fsync": ("EIO",),
    "rename": ("EIO",),
    "mkdir": ("ENOSPC",),
    "unlink": ("EIO",),
}
FAULTS = [("kill", kind) for kind in CALLS] + [(e, kind) for kind in ERRORS for e in ERRORS[kind]]
"""(effect, kind of call) for all that may go wrong on a disk."""


def check_error(run: Run) -> None:
    """One sentence; it may stand behind a line that is cut, where the fault hit stderr itself."""
    assert run.code == 1
    assert "Traceback" not in run.err
    assert run.err.count("Error: ") == 1, run.err
    assert "Error: " in run.err.splitlines()[-1]
