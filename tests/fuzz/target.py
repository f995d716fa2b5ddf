"""What a parser under test is: `Target`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Target:
    """A parser. `make` gives the bytes of a case; `run` reads them, in its own folder.

    `run` raises MixerError for what is refused; anything else that it raises is a finding.
    """

    make: Callable[[Random], bytes]
    run: Callable[[bytes, Path], None]


def written(data: bytes, folder: Path, name: str) -> Path:
    """A new file with these bytes."""
    path = folder / name
    path.write_bytes(data)
    return path
