"""Sixteen small images in two splits and two classes, and the same packed in other ways."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Files = dict[str, bytes]
"""Path -> content."""


def png(value: int) -> bytes:
    """An image that differs from others in size and content."""
    file = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 256, (6 + value, 9, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def files() -> Files:
    """train/ with 6 cats and 4 dogs, val/ with 3 and 3."""
    found, value = {}, 0
    for split, counts in (("train", {"cat": 6, "dog": 4}), ("val", {"cat": 3, "dog": 3})):
        for name, count in counts.items():
            for i in range(count):
                # Folders in a class are walked after its images.
                inner = "deep/" if i == 0 else ""
                found[f"{split}/{name}/{inner}{i}.png"] = png(value)
                value += 1
    return found


@pytest.fixture
def folder(files: Files, tmp_path: Path) -> Path:
    for name, data in files.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "photos"


Pack = Callable[..., Path]


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """`pack("a.zip", files, prefix)` writes them in another order than theirs."""

    def write(name: str, files: Files, prefix: str = "") -> Path:
        path = tmp_path / name
        backwards = {f"{prefix}{name}": data for name, data in reversed(files.items())}
        if name.endswith(".zip"):
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for member, data in backwards.items():
                    archive.writestr(member, data)
            return path
        kind = path.suffix[1:]
        with tarfile.open(path, "w" if kind == "tar" else f"w:{kind}") as archive:  # type: ignore[call-overload]
            for member, data in backwards.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path

    return write


def features(**kinds: object) -> dict[bytes, bytes]:
    """The schema's metadata, as `datasets` writes them."""
    return {b"huggingface": json.dumps({"info": {"features": kinds}}).encode()}


IMAGE = {"_type": "Image"}
CLASSES = {"names": ["dog", "cat"], "_type": "ClassLabel"}


def parquet(files: Files, split: str, *, group: int = 4) -> bytes:
    """A split of `files` as the Hub's Parquet, classes numbered as in CLASSES."""
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [(path.split("/"), data) for path, data in files.items() if path.startswith(split)]
    table = pyarrow.table(
        {
            "image": [{"bytes": data, "path": parts[-1]} for parts, data in rows],
            "label": [CLASSES["names"].index(parts[1]) for parts, _ in rows],  # type: ignore[attr-defined]
        }
    ).replace_schema_metadata(features(image=IMAGE, label=CLASSES))
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=group)
    return file.getvalue()
