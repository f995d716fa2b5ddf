"""`mixer predict -o`, with every write, flush, rename and removal failing or fatal.

Whatever happens, FILE is absent, as it was, or whole, and --resume makes the file of an
undisturbed run. After an error there is one sentence and exit code 1.
"""

import subprocess
from pathlib import Path

import pytest
from faults.strace import (
    FAULTS,
    MIXER,
    Record,
    check_error,
    environment,
    injection,
    missing,
    run,
)

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"NOT RUN: needs {missing()}")

OLD = b"image,rank\nan older file\n"
ARGUMENTS = ["predict", "images", "-m", "cifar10", "-b", "2", "--format", "csv", "-o", "out.csv"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cat: Path) -> bytes:
    """What an undisturbed run writes."""
    folder = tmp_path_factory.mktemp("whole")
    images(folder, cat)
    go_on(folder)
    data = (folder / "out.csv").read_bytes()
    assert data.count(b"\n") == 1 + 5 * 6
    return data


def images(folder: Path, cat: Path) -> None:
    (folder / "images").mkdir()
    for number in range(6):
        (folder / "images" / f"{number}.png").symlink_to(cat)


def go_on(folder: Path) -> None:
    """The next run, which finishes what the one before has left."""
    command = [*MIXER, *ARGUMENTS, "--resume", "--force"]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True, timeout=60)


def check(folder: Path, old: bool, whole: bytes, effect: str, kind: str, nth: int) -> str | None:
    """One run with the nth call of a kind failing; how FILE is then, None if none failed."""
    reset(folder, old)
    force = ["--force"] if old else []
    done = run([*ARGUMENTS, *force], folder, injection(effect, kind, nth))
    if not done.hit and done.code != -9:
        assert done.code == 0
        return None
    out = folder / "out.csv"
    found = out.read_bytes() if out.exists() else None
    assert found in ({OLD, whole} if old else {None, whole})
    if effect == "kill":
        assert done.code == -9
    elif done.code == 0:
        assert found == whole
    else:
        check_error(done)
    go_on(folder)
    assert out.read_bytes() == whole
    assert not list(folder.glob("out.csv.*"))
    state = "new" if found == whole else "old" if old else "absent"
    return f"exit {done.code}, {state}"


def reset(folder: Path, old: bool) -> None:
    for path in folder.glob("*out.csv*"):
        path.unlink()
    if old:
        (folder / "out.csv").write_bytes(OLD)


@pytest.mark.parametrize(
    ("effect", "kind", "nth"), [("ENOSPC", "write", 2), ("kill", "rename", 1), ("EIO", "fsync", 1)]
)
def test_one_fault_of_a_kind(
    effect: str, kind: str, nth: int, tmp_path: Path, cat: Path, whole: bytes
) -> None:
    images(tmp_path, cat)
    assert check(tmp_path, False, whole, effect, kind, nth)


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True], ids=["new", "replace"])
@pytest.mark.parametrize(("effect", "kind"), FAULTS)
def test_every_fault(
    effect: str, kind: str, old: bool, tmp_path: Path, cat: Path, whole: bytes, record: Record
) -> None:
    images(tmp_path, cat)
    reset(tmp_path, old)
    made = run([*ARGUMENTS, *(["--force"] if old else [])], tmp_path).counts[kind]
    test = f"predict -o: {effect} at {kind}, {'replacing a file' if old else 'a new file'}"
    for nth in range(1, made + 1):
        if state := check(tmp_path, old, whole, effect, kind, nth):
            record(test, state)
    assert check(tmp_path, old, whole, effect, kind, made + 1) is None
