"""What `mixer predict` makes of its arguments and of stdin, as a process of its own."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image


def predicted(*args: object, stdin: bytes = b"", folder: Path | None = None) -> list[str]:
    """The names of the images, all of which must be readable."""
    command = [sys.executable, "-m", "mixer_mlx", "predict", *map(str, args), "-m", "cifar10"]
    run = subprocess.run(
        [*command, "--format", "json", "-k", "1"],
        input=stdin,
        capture_output=True,
        cwd=folder,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, b"")
    return [json.loads(line)["image"] for line in run.stdout.splitlines()]


def test_all_kinds_at_once(cat: Path, tmp_path: Path, odd_name: str) -> None:
    for name in ("a.png", "b.png", "sub/c.png", "sub/[d].png", "line\nbreak.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(cat, tmp_path / name)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(cat, "in/e.png")
    odd = os.fsencode(tmp_path / f"{odd_name}.png")
    shutil.copy(cat, odd)
    listed = b"line\nbreak.png\0" + odd + b"\0sub/[d].png\0"
    found = predicted("./a.png", "*.zip", "sub", "-", "-0", "?.png", stdin=listed, folder=tmp_path)
    assert found == [
        *("./a.png", "z.zip/in/e.png", "sub/[d].png", "sub/c.png"),
        *("line\nbreak.png", os.fsdecode(odd), "sub/[d].png"),
        *("a.png", "b.png"),
    ]


def test_a_list_of_lines(cat: Path, tmp_path: Path) -> None:
    copy = shutil.copy(cat, tmp_path)
    assert predicted("-", stdin=f"{cat}\n{tmp_path}\n".encode()) == [str(cat), str(copy)]


@pytest.mark.parametrize("options", [(), ("--exact",)])
def test_exact_does_not_turn(options: tuple[str, ...], mixer, cat: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(cat) as image:
        image.save(tmp_path / "exif.png", exif=exif)
        image.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "turned.png")
    same = cat if options else tmp_path / "turned.png"
    runs = [
        mixer("predict", path, "-m", "cifar10", "--format", "json", *options)
        for path in (tmp_path / "exif.png", same)
    ]
    first, second = (json.loads(run.out)["predictions"] for run in runs)
    assert first == second
