"""What teaching makes: OUT/model-1, OUT/run-1, OUT/model-1.onnx, ...; nothing is overwritten."""

import functools
import itertools
import re
import subprocess
import sys
from pathlib import Path

from mixer_mlx.choices import ExportFormat
from mixer_mlx.errors import MixerError


def mixer(*arguments: str) -> list[str]:
    """The command line of another `mixer`, by this Python."""
    return [sys.executable, "-m", "mixer_mlx", *arguments]


def last_sentence(text: bytes) -> str:
    """The last line that a command wrote to stderr."""
    lines = text.decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


class Outputs:
    """The folder OUT, which is made when something is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def newest(self, kind: str) -> Path | None:
        """The one with the largest number, e.g. of the kind "run"."""
        numbers = [self._number(path, kind) for path in self.folder.glob(f"{kind}-*")]
        largest = max(filter(None, numbers), default=None)
        return self.folder / f"{kind}-{largest}" if largest else None

    def following(self, kind: str) -> Path:
        """The next name."""
        newest = self.newest(kind)
        return self.folder / f"{kind}-{1 + (self._number(newest, kind) if newest else 0)}"

    def models(self) -> list[str]:
        """Names of what can be exported: saved models, and runs that have validated once."""
        found = [path.parent.name for path in self.folder.glob("model-*/config.json")]
        found += [path.parents[1].name for path in self.folder.glob("run-*/best/config.json")]
        return sorted(found, key=lambda name: (name.partition("-")[0], _last_number(name)))

    def export(self, name: str, format: ExportFormat) -> Path:
        """Export one of `models`, by a command of its own. Raises MixerError with its words."""
        from mixer_mlx.convert.export.formats import FORMATS

        if name not in self.models():
            raise MixerError("There is no such model; save one first.")
        if format not in FORMATS:
            raise MixerError(f"There is no format {format!r}.")
        suffix = FORMATS[format].suffix or f"-{format}"
        free = (f"{name}{'' if n == 1 else f'-{n}'}{suffix}" for n in itertools.count(1))
        target = next(path for each in free if not (path := self.folder / each).exists())
        command = mixer("export", str(self.folder / name), str(target), "--format", format, "-q")
        done = subprocess.run(  # noqa: S603  # our own command
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode:
            raise MixerError(last_sentence(done.stderr) or "The export failed.")
        return target

    @staticmethod
    def _number(path: Path, kind: str) -> int:
        found = re.fullmatch(rf"{kind}-([1-9][0-9]{{0,6}})", path.name)
        return int(found[1]) if found else 0


def _last_number(name: str) -> int:
    return int(name.rpartition("-")[2]) if name.rpartition("-")[2].isdecimal() else 0


@functools.cache
def installed_formats() -> list[ExportFormat]:
    """Names of the formats whose extras are installed."""
    from mixer_mlx.convert.export.formats import FORMATS

    found: list[ExportFormat] = []
    for name, kind in FORMATS.items():
        try:
            kind.require()
        except MixerError:
            continue
        found.append(name)
    return found
