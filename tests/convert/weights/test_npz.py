"""Hostile archives: refused in a sentence, before memory is taken."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from mixer_mlx import SourceError
from mixer_mlx.convert.weights import npz


def member(shape: tuple[int, ...], dtype: str = "<f4", data: bytes = b"") -> bytes:
    file = io.BytesIO()
    npy.write_array_header_1_0(
        file, {"shape": shape, "fortran_order": False, "descr": np.dtype(dtype).str}
    )
    return file.getvalue() + data


def archive(path: Path, members: dict[str, bytes], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:  # type: ignore[arg-type]
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (member((10**11,)), "another size"),
        (member((2**31, 2**31, 4)), "another size"),
        (member((-1, -4), data=bytes(16)), "another size"),
        (member((4,), data=bytes(15)), "another size"),
        (member((4,), data=bytes(17)), "another size"),
        (member((4,), "<c8", bytes(32)), "complex64"),
        (b"\x93NUMPY\x09\x00", "version"),
        (b"text", "magic"),
        (b"", "magic"),
    ],
)
def test_a_member_that_lies(tmp_path: Path, content: bytes, says: str) -> None:
    path = archive(tmp_path / "w.npz", {"a.npy": content})
    with pytest.raises(SourceError, match=says):
        npz.read_header(path)


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SourceError, match="object"):
        npz.read_header(tmp_path / "w.npz")


def test_names_must_differ_and_be_arrays(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            file.writestr("a.npy", member((1,), data=bytes(4)))
    with pytest.raises(SourceError, match="same name"):
        npz.read_header(path)
    archive(path, {"a.txt": b"x"})
    with pytest.raises(SourceError, match=r"a\.txt isn't an array"):
        npz.read_header(path)


def test_names_are_never_paths(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.npz", {"../../evil.npy": member((1,), data=bytes(4))})
    assert list(npz.read_arrays(path)) == ["../../evil"]
    assert not (tmp_path.parent.parent / "evil.npy").exists()


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.npz", {"a.npy": member((64,), data=bytes(range(256)))})
    content = bytearray(path.read_bytes())
    content[content.index(bytes(range(100, 120)))] ^= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match="CRC"):
        npz.read_arrays(path)


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """256 MiB of zeros in 256 kB: the header is read, the rest is not."""
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("a.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(member((2**26,)))
        for _ in range(16):
            stream.write(bytes(2**24))
    code = (
        "import sys, resource; from mixer_mlx import convert, MixerError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: convert.import_model(sys.argv[1])\n"
        "except MixerError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(run.stdout) * unit < 64 * 2**20
