"""Ctrl-C and SIGTERM at random moments: the exit code that docs/cli.md names, no traceback."""

import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from faults.strace import MIXER, Record, environment

SEED = 0
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="NOT RUN: needs /proc (Linux)"
)


def listens(pid: int) -> bool:
    """Whether a process has taken over SIGTERM. Before, it is Python that starts."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    [caught] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def _heed_signals() -> None:
    """Where the tests run in the background, SIGINT is ignored, and that is inherited."""
    for number in CODES:
        signal.signal(number, signal.SIG_DFL)


def interrupt(
    arguments: Sequence[object], folder: Path, number: signal.Signals, wait: float
) -> tuple[int, str]:
    """Exit code and stderr of a command that gets a signal, seconds after it could be told."""
    process = subprocess.Popen(
        [*MIXER, *map(str, arguments)],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_signals,
    )
    while process.poll() is None and not listens(process.pid):
        time.sleep(0.001)
    time.sleep(wait)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


def commands(folder: Path, golden: Path, cat: Path) -> dict[str, list[object]]:
    """Arguments by command; 40 images are put into the folder."""
    for number in range(40):
        (folder / f"{number}.png").symlink_to(cat)
    return {
        "convert": ["convert", golden / "jax_square.npz", "out", "--force"],
        "predict": ["predict", folder, "-m", "cifar10", "-o", "out.csv", "--format", "csv"],
    }


def check(
    command: str,
    number: signal.Signals,
    chance: random.Random,
    arguments: Sequence[object],
    folder: Path,
) -> str:
    """One run that is interrupted; how it ended."""
    code, err = interrupt(arguments, folder, number, chance.uniform(0, 0.5))
    assert "Traceback" not in err, err
    done = "Wrote" in err if command == "convert" else (folder / "out.csv").exists()
    # While Python ends, after all is done, it heeds signals no more and they kill.
    assert code in {0, CODES[number]} or (code == -number and done), (code, err)
    if code > 0:
        assert "Interrupted." in err
    left = {path.name for path in folder.iterdir() if path.suffix != ".png"}
    allowed = {"out"} if command == "convert" else {"out.csv", "out.csv.part", "out.csv.part.json"}
    assert left <= allowed
    for name in ("out.csv", "out.csv.part", "out.csv.part.json"):
        (folder / name).unlink(missing_ok=True)
    return f"exit {code}"


def _chance() -> random.Random:
    return random.Random(SEED)  # noqa: S311  # not for secrets


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("command", ["convert", "predict"])
def test_a_signal(
    command: str, number: signal.Signals, tmp_path: Path, golden: Path, cat: Path
) -> None:
    arguments = commands(tmp_path, golden, cat)[command]
    check(command, number, _chance(), arguments, tmp_path)


def test_a_pause(tmp_path: Path, cat: Path) -> None:
    """SIGTERM that comes while a command is stopped is heeded when it continues."""
    process = subprocess.Popen(
        [*MIXER, "predict", cat, "-", "-m", "cifar10", "--format", "csv"],
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_signals,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{cat}\n" * 99)
    process.stdin.flush()
    lines = [process.stdout.readline() for _ in range(2)]
    for _ in range(2):
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=30)
    assert lines[1].startswith(f"{cat},1,")
    assert (process.returncode, err) == (143, "Interrupted.\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("command", ["convert", "predict"])
def test_signals(
    command: str, number: signal.Signals, tmp_path: Path, golden: Path, cat: Path, record: Record
) -> None:
    chance = _chance()
    arguments = commands(tmp_path, golden, cat)[command]
    outcomes = [check(command, number, chance, arguments, tmp_path) for _ in range(50)]
    assert f"exit {CODES[number]}" in outcomes  # on a fast machine some are finished before
    for outcome in outcomes:
        record(f"{command}: {number.name} at random moments", outcome, seed=SEED)
