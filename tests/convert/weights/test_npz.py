"""Hostile archives: refused in a sentence, before memory is taken."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from mixer_mlx.convert import import_model
from mixer_mlx.convert.weights import npz
from mixer_mlx.errors import MixerError, SourceError


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


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2)])
def test_an_empty_array_is_an_array(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "w.npz", a=np.zeros(shape, np.float32), b=np.ones(2, np.float32))
    header = npz.read_header(tmp_path / "w.npz")
    assert {name: member.shape for name, member in header.items()} == {"a": shape, "b": (2,)}
    assert npz.read_arrays(tmp_path / "w.npz")["a"].shape == shape


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.npz", {"a.npy": member((64,), data=bytes(range(256)))})
    content = bytearray(path.read_bytes())
    content[content.index(bytes(range(100, 120)))] ^= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match="CRC"):
        npz.read_arrays(path)


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """64 MiB of zeros in 64 kB: the header is read, the rest is not."""
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("a.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(member((2**24,)))
        for _ in range(4):
            stream.write(bytes(2**24))
    tracemalloc.start()
    try:
        with pytest.raises(MixerError):
            import_model(path)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
        # What is measured would show it.
        assert npz.read_arrays(path)["a"].size == 2**24
        assert tracemalloc.get_traced_memory()[1] > 2**26
    finally:
        tracemalloc.stop()
