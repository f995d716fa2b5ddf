"""Read foreign PyTorch files by PyTorch's weights-only loader, in a process of its own.

That process (`torch_child`) writes a .safetensors file to a temporary folder, which is then read
like any other. It has a timeout, and on Linux a memory limit that grows with the file; macOS
doesn't enforce one. PyTorch is never imported here.
"""

import re
import shutil
import struct
import subprocess
import sys
import tempfile
import weakref
import zipfile
from importlib import metadata
from pathlib import Path

from mixer_mlx.errors import SourceError
from mixer_mlx.runtime.documents import parse_json

_CHILD = Path(__file__).with_name("torch_child.py")
_OLDEST = (2, 10)  # CVE-2026-24747: before, a file could write outside a tensor's memory
_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # a pickled number, first in every old file
_SECONDS = 120.0  # PyTorch may start from a cold disk
_BYTES_PER_SECOND = 2**23
# RuntimeError stands for encrypted members.
_UNREADABLE = (zipfile.BadZipFile, struct.error, OSError, EOFError, ValueError, RuntimeError)


class Converted:
    """`path` is a .safetensors file that is removed with this object.

    `notes` say what was chosen from the content of the PyTorch file, one phrase each.
    """

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="mixer-mlx-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = Path(folder) / "weights.safetensors"
        self.notes: tuple[str, ...] = ()


def is_legacy(start: bytes) -> bool:
    """Whether a file that starts with these 32 bytes is in PyTorch's format before zip."""
    return start.startswith(b"\x80") and _MAGIC in start


def to_safetensors(path: Path) -> Converted:
    """Write the state dict of a PyTorch file, in zip or legacy format, as .safetensors.

    Numbers keep their dtype; anything else is refused, and code never runs. Raises SourceError.
    """
    if not is_legacy(_start(path)):
        _check_archive(path)
    _check_torch(path)
    try:
        converted = Converted()
    except OSError as error:
        raise SourceError(f"{path} needs a temporary folder to be read ({error}).") from error
    answer = _run(path, converted.path)
    if "fault" in answer:
        raise SourceError(f"{path} {answer['fault']}.")
    converted.notes = tuple(answer["notes"])
    return converted


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(32)


def _check_archive(path: Path) -> None:
    """Refuse damage, which PyTorch doesn't look for, and members that unpack to more bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if packed := [member for member in members if member.compress_type]:
                raise ValueError(f"its member {packed[0].filename} is compressed")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise ValueError("its members are larger than the file")
            # PyTorch can leave the checksums out; then all are 0.
            if any(member.CRC for member in members) and (bad := archive.testzip()):
                raise ValueError(f"its member {bad} is damaged")
    except _UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise SourceError(f"{path} isn't a readable PyTorch file: {reason}.") from error


def _check_torch(path: Path) -> None:
    advice = "(pip install 'mixer-mlx[torch]'), or give the .safetensors file"
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError as error:
        raise SourceError(f"{path} needs PyTorch to be read; install it {advice}.") from error
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise SourceError(
            f"{path} needs PyTorch {oldest} or later to be read safely, not {version}; "
            f"update it {advice}."
        )


def _run(path: Path, target: Path) -> dict[str, list[str]]:
    # -P: no module in this folder, or in the user's, takes the place of an installed one.
    command = [sys.executable, "-P", "-W", "ignore", str(_CHILD), str(path), str(target)]
    seconds = _SECONDS + path.stat().st_size / _BYTES_PER_SECOND
    try:
        run = subprocess.run(  # noqa: S603  # our own script
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise SourceError(
            f"{path} was not read within {seconds:.0f} seconds; give the .safetensors file."
        ) from error
    except OSError as error:
        raise SourceError(f"{path} can't be read: no process starts ({error}).") from error
    if run.returncode < 0:
        raise SourceError(
            f"{path} can't be read: the process that reads it was ended by signal "
            f"{-run.returncode}, as happens when memory runs out."
        )
    if run.returncode:
        last = run.stderr.decode(errors="replace").strip().split("\n")[-1]
        raise SourceError(f"{path} can't be read: the process that reads it failed ({last}).")
    answer: dict[str, list[str]] = parse_json(run.stdout.splitlines()[-1])
    return answer
