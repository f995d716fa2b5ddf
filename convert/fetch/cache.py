"""Converted models on disk, so that each source is fetched and converted once.

`MIXER_MLX_CACHE` (default `~/.cache/mixer-mlx`) holds `models/`, a native folder for each source,
dtype and revision, with the checksums of its files; `downloads/`, files from URLs; `datasets/`, the
names of files on the Hub; and `indexes/`, the vectors of folders. Folders appear whole
(`mixer_mlx.runtime.atomic`); locks only keep processes from doing the same work twice.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from mixer_mlx import checkpoint
from mixer_mlx.errors import CheckpointError, ConfigError, SourceError
from mixer_mlx.features.store import folder_of
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.runtime import macos
from mixer_mlx.runtime.atomic import replacing_folder
from mixer_mlx.runtime.documents import read_text
from mixer_mlx.runtime.files import open_regular

_SUMS = "SHA256SUMS"
_RECORDED = ("address", "revision", "dtype")


@dataclass(frozen=True)
class Cached:
    """A converted model in the cache. `source` is the address it came from."""

    path: Path
    source: str
    revision: str
    dtype: str

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.lstat().st_size for file in macos.entries(self.path))


@dataclass(frozen=True)
class Index:
    """The vectors of a folder's images, by the model with this fingerprint."""

    path: Path
    folder: str
    fingerprint: str

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.path.lstat().st_size


def root() -> Path:
    """The folder of the cache. Raises SourceError if there is no home folder for it."""
    if chosen := os.environ.get("MIXER_MLX_CACHE"):
        return Path(chosen)
    try:
        return Path.home() / ".cache" / "mixer-mlx"
    except RuntimeError as error:
        raise SourceError(
            "There is no home folder for the cache; set MIXER_MLX_CACHE to a folder that you can "
            "write to."
        ) from error


def downloads(url: str) -> Path:
    """The folder for the file behind a URL."""
    return root() / "downloads" / _key(url)


def index(folder: Path, fingerprint: str) -> Path:
    """The file for the vectors of a folder's images, by the model with this fingerprint."""
    return root() / "indexes" / f"{_key(os.path.realpath(folder))}-{fingerprint}.npz"


def indexes() -> list[Index]:
    """All indexes, in order of their folders."""
    paths = (root() / "indexes").glob("[!.]*.npz")
    found = [
        Index(path, folder_of(path) or path.stem, path.stem.rpartition("-")[2]) for path in paths
    ]
    return sorted(found, key=lambda index: (index.folder, index.fingerprint))


def listing(dataset: str, revision: str) -> Path:
    """The file for the names of a dataset's files on the Hub."""
    return root() / "datasets" / f"{_key(f'{dataset}@{revision}')}.json"


def find(source: str, dtype: str = "*") -> Path | None:
    """The newest converted model of a source, in the given dtype or in any."""
    found = [path for path in _models().glob(f"{_key(source)}--{dtype}--*") if path.is_dir()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


@contextmanager
def lock(source: str) -> Iterator[None]:
    """Held while a source is fetched and converted. Raises SourceError if nothing can be kept."""
    try:
        _models().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(
            f"The cache {root()} can't be written ({error.strerror}); set MIXER_MLX_CACHE to a "
            "folder that you can write to."
        ) from error
    with exclusive(_models() / f".{_key(source)}.lock"):
        yield


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, for one process at a time; do without if it can't be locked.

    Some network file systems have no locks. Files appear whole either way, but work may be done
    twice.
    """
    lock = FileLock(path)
    with suppress(OSError, NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def store(source: str, dtype: str, revision: str, model: MlpMixer, info: ModelInfo) -> Path:
    """Write a converted model; `info.source` must hold `address`, `revision` and `dtype`."""
    path = _models() / f"{_key(source)}--{dtype}--{_slug(revision)}"
    try:
        with replacing_folder(path) as temporary:
            checkpoint.write(temporary, model, info)
            (temporary / _SUMS).write_text(_sums(temporary), encoding="utf-8")
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} can't be written: {error}.") from error
    return path


def entries() -> list[Cached]:
    """All converted models, in order of their folders' names."""
    found = []
    for path in sorted(_models().glob("[!.]*")):
        if path.is_dir():
            try:
                source = checkpoint.read_info(path).source
            except CheckpointError:
                source = {}
            address, revision, dtype = (str(source.get(key, "?")) for key in _RECORDED)
            found.append(Cached(path, address, revision, dtype))
    return found


def remove(entry: Cached) -> None:
    """Delete a converted model, and the download it came from."""
    if entry.path.is_symlink():
        entry.path.unlink()
    else:
        shutil.rmtree(entry.path)
    shutil.rmtree(downloads(entry.source), ignore_errors=True)


def remove_downloads() -> None:
    """Delete all downloads from URLs, and all indexes of folders."""
    for name in ("downloads", "indexes"):
        shutil.rmtree(root() / name, ignore_errors=True)


def verify(entry: Cached) -> str | None:
    """None if every file has the checksum recorded at conversion, otherwise what is wrong."""
    try:
        recorded = read_text(entry.path / _SUMS)
        if recorded == _sums(entry.path):
            return None
    except ConfigError as error:
        return f"{entry.path / _SUMS}: {str(error).removesuffix('.')}"
    except OSError as error:
        return f"{error.filename or entry.path} can't be read ({error.strerror})"
    return "the checksums of its files aren't those of the conversion"


def _models() -> Path:
    return root() / "models"


def _sums(folder: Path) -> str:
    """What `sha256sum` prints for the model's two files."""
    lines = []
    for name in (checkpoint.CONFIG_FILE, checkpoint.WEIGHTS_FILE):
        with open_regular(folder / name) as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def _key(source: str) -> str:
    """A readable name that no two sources share."""
    return f"{_slug(source)}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[-60:]
