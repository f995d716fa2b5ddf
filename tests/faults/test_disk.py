"""Disks that are full, folders that may not be read or written, and one that goes away."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults.strace import MIXER, environment

from mixer_mlx.convert import convert

SHELL = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
# Root may read and write everything; without these two capabilities it is a user as any other.
RIGHTS = "-dac_override,-dac_read_search"
AS_USER = ["setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}"]


def works(*command: str) -> bool:
    return shutil.which(command[0]) is not None and (
        subprocess.run(command, capture_output=True).returncode == 0
    )


needs_tmpfs = pytest.mark.skipif(
    not works(*SHELL, "mount -t tmpfs none /mnt"), reason="NOT RUN: no disk may be mounted here"
)
needs_user = pytest.mark.skipif(
    os.geteuid() == 0 and not works(*AS_USER, "true"), reason="NOT RUN: root can't give up rights"
)


def mixer(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command as a user who is not root."""
    prefix = AS_USER if os.geteuid() == 0 else []
    command = [*prefix, *MIXER, *map(str, arguments)]
    env = environment(folder)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def check_sentence(code: int, err: str, *says: str) -> None:
    """Exit code 1 and one sentence."""
    assert code == 1
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1
    assert all(part in err for part in says), err


@needs_tmpfs
@pytest.mark.parametrize("size", ["4k", "64k", "292k"])
def test_a_full_disk(size: str, tmp_path: Path, golden: Path) -> None:
    """The model takes 296 KiB in two files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    python, source = sys.executable, golden / "jax_square.npz"
    script = f"mount -t tmpfs -o size={size} none {disk}; cd {disk}; code=0; " + (
        f"'{python}' -m mixer_mlx convert '{source}' out || code=$?; ls -A; exit $code"
    )
    run = subprocess.run(
        [*SHELL, script], env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    check_sentence(run.returncode, run.stderr, "out can't be written")
    assert run.stdout == ""


@needs_user
def test_weights_that_may_not_be_read(tmp_path: Path, golden: Path) -> None:
    for name in ("jax_square.npz", "timm_tiny.safetensors"):
        source = tmp_path / name
        source.write_bytes((golden / name).read_bytes())
        source.chmod(0)
        run = mixer(tmp_path, "convert", source, tmp_path / "out")
        check_sentence(run.returncode, run.stderr, name)
        assert not (tmp_path / "out").exists()


@needs_user
@pytest.mark.parametrize("mode", [0o000, 0o100, 0o400])
def test_a_model_folder_that_may_not_be_read(
    mode: int, tmp_path: Path, golden: Path, cat: Path
) -> None:
    convert(golden / "jax_square.npz", tmp_path / "model")
    (tmp_path / "model").chmod(mode)
    try:
        for arguments in (["info"], ["predict", cat, "-m"], ["convert"]):
            out = [tmp_path / "out"] if arguments == ["convert"] else []
            run = mixer(tmp_path, *arguments, tmp_path / "model", *out)
            if mode == 0o100 and run.returncode == 0:
                continue  # a folder that is not listed can still be gone into
            assert run.returncode == 1
            assert run.stderr.startswith("Error: "), run.stderr
    finally:
        (tmp_path / "model").chmod(0o700)


@needs_user
def test_a_folder_that_may_not_be_written(tmp_path: Path, golden: Path, cat: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    out = tmp_path / "locked" / "out"
    run = mixer(tmp_path, "convert", golden / "jax_square.npz", out)
    check_sentence(run.returncode, run.stderr, str(out), "Permission denied")
    run = mixer(tmp_path, "predict", cat, "-m", "cifar10", "-o", out)
    check_sentence(run.returncode, run.stderr, str(out), "Permission denied")
    assert list((tmp_path / "locked").iterdir()) == []


@needs_user
def test_images_that_may_not_be_read(tmp_path: Path, cat: Path) -> None:
    """The others still come."""
    folder = tmp_path / "images"
    (folder / "locked").mkdir(parents=True)
    shutil.copy(cat, folder / "a.png")
    shutil.copy(cat, folder / "b.png")
    shutil.copy(cat, folder / "locked" / "c.png")
    (folder / "b.png").chmod(0)
    (folder / "locked").chmod(0)
    try:
        run = mixer(tmp_path, "predict", folder, "-m", "cifar10", "--format", "csv")
    finally:
        (folder / "locked").chmod(0o700)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert f"{folder}/a.png,1," in run.stdout
    assert f"{folder}/b.png" in run.stdout
    assert "locked" in run.stdout + run.stderr


def test_a_folder_that_goes_away(tmp_path: Path, golden: Path) -> None:
    """It is removed before what was written in it is renamed."""
    parent = tmp_path / "parent"
    parent.mkdir()
    code = (
        "import shutil, sys; from mixer_mlx.runtime import atomic;"
        "from mixer_mlx.cli.main import main;"
        "real, parent = atomic.sync, sys.argv.pop(1);"
        "atomic.sync = lambda path: (real(path), shutil.rmtree(parent, ignore_errors=True));"
        "main()"
    )
    arguments = ["convert", golden / "jax_square.npz", parent / "out"]
    run = subprocess.run(
        [sys.executable, "-c", code, parent, *arguments],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    check_sentence(run.returncode, run.stderr, "can't be written")
    assert not parent.exists()
