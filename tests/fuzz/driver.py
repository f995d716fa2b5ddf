"""Run cases; each ends in a value, one of our errors, or a finding."""

import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path

from fuzz.mutate import rng
from fuzz.targets import TARGETS

from mixer_mlx.errors import MixerError

SECONDS = 10.0
"""A case that takes more CPU time is a finding."""
MEMORY = 2 * 2**30
"""So is one that needs more memory, in bytes."""


@dataclass(frozen=True)
class Finding:
    """A failure. `kind` is the same for the same cause."""

    parser: str
    number: int
    kind: str
    text: str

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def case(parser: str, seed: int, number: int) -> bytes:
    """The bytes of a case."""
    return TARGETS[parser].make(rng(seed, parser, number))


def run_cases(
    parser: str, seed: int, numbers: Iterable[int], begin: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[int, str, Finding | None]]:
    """For each case its number, its outcome ("value", the error's name, "finding"), the finding.

    `begin` is called with each number first. Anything that a case writes to stderr, or into its
    folder beyond what `run` itself wrote, is a finding.
    """
    with tempfile.TemporaryDirectory(prefix="mixer-fuzz-") as scratch, _stderr(scratch) as spilled:
        folder, canary = Path(scratch, "cases"), Path(scratch, "canary")
        folder.mkdir()
        for number in numbers:
            begin(number)
            start = time.process_time()
            data = case(parser, seed, number)
            outcome, fault = _outcome(parser, data, folder)
            if text := spilled():
                fault = fault or ("wrote to stderr", text)
            if (seconds := time.process_time() - start) > SECONDS:
                fault = fault or ("took too long", f"{seconds:.0f} s")
            if set(os.listdir(scratch)) != {"cases", "stderr"} or canary.exists():
                fault = fault or ("wrote outside its folder", str(os.listdir(scratch)))
            finding = Finding(parser, number, *fault) if fault else None
            yield number, "finding" if finding else outcome, finding


def _outcome(parser: str, data: bytes, folder: Path) -> tuple[str, tuple[str, str] | None]:
    try:
        TARGETS[parser].run(data, folder)
    except MixerError as error:
        name = type(error).__name__
        return name, None if str(error).strip() else (f"{name} without a text", "")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"
        return "finding", (kind, "".join(traceback.format_exception(error))[-2000:])
    return "value", None


@contextmanager
def _stderr(folder: str) -> Iterator[Callable[[], str]]:
    """Redirect descriptor 2 to a file; yields a function that returns what was added to it."""
    kept = os.dup(2)
    into = os.open(f"{folder}/stderr", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(into, 2)

    def spilled() -> str:
        size = os.fstat(into).st_size
        text = os.pread(into, 2000, 0).decode(errors="replace") if size else ""
        if size:
            os.ftruncate(into, 0)
        return text

    # pytest has put something else in the place of sys.stderr.
    with open(into, "w", buffering=1) as stream, redirect_stderr(stream):
        try:
            yield spilled
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def limit_memory() -> None:
    """Let this process have MEMORY bytes of addresses. Linux only: macOS maps more at the start."""
    if sys.platform != "linux":
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, most))
