"""Datasets in Parquet files, as the Hugging Face Hub stores them."""

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from threading import Lock

import numpy as np

from mixer_mlx.errors import ConfigError

from .columns import Columns
from .dataset import Dataset, by_name
from .parquet_file import ParquetFile
from .splits import KNOWN, WHOLE
from .spool import Spool

_NUMBERED = re.compile(r"(.+?)-\d{5,}-of-(\d{5,})\b.*")
_BETWEEN_WORDS = re.compile(r"[-._ 0-9]+")


def group_files(names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Paths of Parquet files -> folder of a dataset -> its parts -> their files, sorted.

    `data/train-00000-of-00002.parquet` is in part train of the dataset in `data`;
    `default/train/0000.parquet`, as the Hub's own conversion has it, in that of the dataset in
    `default`, and so is `default/partial-train/0000.parquet`. Raises ConfigError where one of
    several files is missing.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(names):
        folder, part = _place(PurePosixPath(name))
        found.setdefault(folder, {}).setdefault(part, []).append(name)
    for parts in found.values():
        if len(parts) > 1:
            parts.pop(WHOLE, None)
        for part, files in parts.items():
            _check_complete(part, files)
    return found


def _place(path: PurePosixPath) -> tuple[str, str]:
    if numbered := _NUMBERED.fullmatch(path.stem):
        return str(path.parent), numbered[1]
    above = path.parent.name.removeprefix("partial-")
    if above.lower() in KNOWN:
        return str(path.parent.parent), above
    words = _BETWEEN_WORDS.split(path.stem)
    return str(path.parent), next((word for word in words if word.lower() in KNOWN), WHOLE)


def _check_complete(part: str, files: Sequence[str]) -> None:
    numbered = _NUMBERED.fullmatch(PurePosixPath(files[0]).stem)
    if numbered and len(files) < int(numbered[2]):
        raise ConfigError(
            f"Of the {int(numbered[2])} files of part {part} there are {len(files)}, beginning "
            f"with {files[0]}; fetch the others, too."
        )


def find_files(folder: Path, *, deep: bool) -> dict[str, list[Path]]:
    """The parts of the dataset in a folder, and their files; empty where there are none.

    Folders are looked into, and with `deep` those in them. Raises ConfigError for several datasets.
    """
    patterns = ["**/*.parquet"] if deep else ["*.parquet", "*/*.parquet"]
    found_paths = chain.from_iterable(map(folder.glob, patterns))
    paths = (path.relative_to(folder) for path in found_paths)
    visible = (path for path in paths if not any(part.startswith(".") for part in path.parts))
    found = group_files(path.as_posix() for path in visible)
    if len(found) > 1:
        raise ConfigError(
            f"{folder} holds several datasets ({', '.join(sorted(found))}); name the folder of one."
        )
    parts = next(iter(found.values()), {})
    return {part: [folder / name for name in files] for part, files in parts.items()}


def read(paths: Sequence[Path], columns: Columns) -> Dataset:
    """The rows of some files, a picture each, named `FILE row N`, counted from 0 in each file.

    Classes are the names of a ClassLabel, in their order; else the labels themselves, sorted.
    Raises ConfigError.
    """
    files = [ParquetFile(path, columns) for path in paths]
    names = files[0].names
    if any(file.names != names for file in files):
        raise ConfigError(f"{paths[0]} and the files beside it differ in the names of the classes.")
    labels = [file.labels() for file in files]
    spool, lock = Spool(sum(file.picture_bytes() for file in files)), Lock()
    members = tuple(chain.from_iterable(file.members(spool, lock) for file in files))
    if not members:
        raise ConfigError(f"{paths[0]} holds no rows; there must be a picture in each.")
    if names is None:
        return by_name(members, list(map(str, chain.from_iterable(labels))))
    return Dataset(names, members, np.concatenate(labels).astype(np.int32))
