"""Files of vectors that aren't what they should be."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mixer_mlx.errors import ConfigError
from mixer_mlx.features.embed import Embedding
from mixer_mlx.features.log import Log
from mixer_mlx.features.pack import pack
from mixer_mlx.features.store import Origin, Vectors, read

ORIGIN = Origin("m", "0" * 16, "pre-logits", "mean", normalize=False)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Three vectors of four numbers."""
    with (tmp_path / "log").open("w+b") as file:
        log = Log(file, (4,), "float32")
        for number in range(3):
            log.add(Embedding(f"{number}.png", np.full(4, number, np.float32)))
        pack(log, tmp_path / "f.npz", tmp_path / "f.npz", ORIGIN)
    return tmp_path / "f.npz"


def test_what_was_written_is_read(made: Path) -> None:
    found = read(made)
    assert isinstance(found, Vectors)
    assert found.names == ["0.png", "1.png", "2.png"]
    assert found.array.tolist() == [[0] * 4, [1] * 4, [2] * 4]
    assert found.origin == ORIGIN


def test_a_log_clips_what_float16_can_not_hold(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+b") as file:
        log = Log(file, (2,), "float16")
        log.add(Embedding("a", np.array([1e9, -1e9], np.float32)))
        (record,) = log.records()
        assert record.vector is not None
        assert record.vector.tolist() == [65504, -65504]


def test_truncated_files(made: Path) -> None:
    data = made.read_bytes()
    for cut in (0, 10, 100, len(data) // 2, len(data) - 1):
        made.write_bytes(data[:cut])
        with pytest.raises(ConfigError, match="isn't an intact file of vectors"):
            read(made)


def arrays(path: Path, compressed: bool = False, **values: object) -> Path:
    save = np.savez_compressed if compressed else np.savez
    origin = np.array(json.dumps({**ORIGIN.__dict__}))
    save(path, **{"origin": origin, **values})  # type: ignore[arg-type]
    return path


def test_arrays_of_others(tmp_path: Path) -> None:
    path, names, vectors = tmp_path / "o.npz", np.array(["a", "b"]), np.zeros((2, 3), np.float32)
    assert read(arrays(path, names=names, vectors=vectors)).names == ["a", "b"]
    wrong: dict[str, dict[str, object]] = {
        "2 vectors and 1 names": {"names": names[:1], "vectors": vectors},
        "expected floating-point": {"names": names, "vectors": vectors.astype(int)},
        "expected floating-point vectors": {"names": names, "vectors": vectors[:, 0]},
        "names are": {"names": np.arange(2), "vectors": vectors},
        "compressed": {"names": names, "vectors": vectors, "compressed": True},
        "Fortran": {"names": names, "vectors": np.asfortranarray(vectors)},
        "vectors": {"names": names},
        "origin lacks": {"names": names, "vectors": vectors, "origin": np.array("{}")},
    }
    for says, values in wrong.items():
        with pytest.raises(ConfigError, match=says):
            read(arrays(path, **values))  # type: ignore[arg-type]
    np.savez(path, names=names, vectors=np.array([object(), None]))
    with pytest.raises(ConfigError, match="isn't an intact file of vectors"):
        read(path)


def test_a_plain_npy_has_numbered_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3), np.float16))
    found = read(tmp_path / "a.npy")
    assert (found.names, found.origin) == (["row 0", "row 1"], None)
    (tmp_path / "a.npy.json").write_text('{"images": 7}')
    with pytest.raises(ConfigError, match="isn't an intact file of vectors"):
        read(tmp_path / "a.npy")


def test_other_files(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.png"):
        with pytest.raises(ConfigError, match=r"make one with `features\.store"):
            read(tmp_path / name)
    with pytest.raises(ConfigError, match="can't be read: No such file"):
        read(tmp_path / "missing.npz")
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as archive:
        archive.writestr("vectors.npy", b"not an array")
    with pytest.raises(ConfigError, match="isn't an intact file"):
        read(tmp_path / "z.npz")
