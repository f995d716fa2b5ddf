"""Lists of labelled images: CSV and TSV files, and the Hub's metadata.csv."""

import csv
import unicodedata
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from mixer_mlx.errors import ConfigError
from mixer_mlx.labels import canonical

from .columns import LABEL_NAMES, PATH_NAMES, Columns, choose
from .dataset import UNSPLIT, Dataset, by_name
from .folders import Splits

METADATA = "metadata.csv"
_SPLIT = "split"

Row = tuple[int, Mapping[str, str]]
"""A line's number, from 1, and its cells by column."""


def find_metadata(folder: Path, columns: Columns) -> Splits:
    """The splits of a folder with a metadata.csv that has labels, or with one in each split.

    Empty if there is none with labels.
    """
    if _is_labelled(folder / METADATA, columns):
        return find(folder / METADATA, columns)
    inner = sorted(path for path in folder.glob(f"*/{METADATA}") if _is_labelled(path, columns))
    return {path.parent.name: partial(_read_whole, path, columns) for path in inner}


def _is_labelled(path: Path, columns: Columns) -> bool:
    if not path.is_file():
        return False
    header = {name.lower() for name in _header(path)}
    return not header.isdisjoint({columns.label} if columns.label else LABEL_NAMES)


def _read_whole(path: Path, columns: Columns) -> Dataset:
    splits = find(path, columns)
    if set(splits) != {UNSPLIT}:
        raise ConfigError(f"{path} lies in a split's folder; remove its column `{_SPLIT}`.")
    return splits[UNSPLIT]()


def find(path: Path, columns: Columns) -> Splits:
    """The splits of a list, by its column `split` if it has one.

    Raises ConfigError that names the line for an empty or missing cell.
    """
    header = _header(path)
    what = str(path)
    image = choose("image", columns.image, _in(header, PATH_NAMES), PATH_NAMES, header, what)
    label = choose("label", columns.label, _in(header, LABEL_NAMES), LABEL_NAMES, header, what)
    split_column = next((name for name in header if name.lower() == _SPLIT), None)
    splits: dict[str, list[tuple[int, str, str]]] = {}
    for line, cells in _rows(path):
        for column in filter(None, (image, label, split_column)):
            if not cells.get(column):
                raise ConfigError(f"{path} line {line} lacks a value for {column}; add one.")
        split = canonical(cells[split_column]) if split_column else UNSPLIT
        splits.setdefault(split, []).append((line, cells[image], cells[label]))
    if not splits:
        raise ConfigError(f"{path} has no lines below its header; add one for each image.")
    return {split: partial(_read, path, rows) for split, rows in splits.items()}


def _in(header: list[str], names: tuple[str, ...]) -> list[str]:
    return [name for name in header if name.lower() in names]


def _read(path: Path, rows: list[tuple[int, str, str]]) -> Dataset:
    images = [_existing(path.parent, name) for _, name, _ in rows]
    for (line, name, _), image in zip(rows, images, strict=True):
        if not image.is_file():
            raise ConfigError(
                f"{path} line {line} names {name}, which isn't in {path.parent}; write paths "
                "relative to the list."
            )
    return by_name(images, [label for _, _, label in rows])


def _existing(folder: Path, name: str) -> Path:
    """The file of that name, in whatever Unicode form the disk has it; as written if there is none.

    macOS finds both forms; other systems compare bytes.
    """
    forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return next((path for form in forms if (path := folder / form).is_file()), folder / name)


def _header(path: Path) -> list[str]:
    return next((cells for _, cells in _lines(path)), [])


def _rows(path: Path) -> Iterator[Row]:
    lines = _lines(path)
    _, header = next(lines, (0, []))
    for number, cells in lines:
        if any(cells):
            yield number, dict(zip(header, cells, strict=False))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Numbers and cells. Raises ConfigError."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for cells in reader:
                yield reader.line_num, [cell.strip() for cell in cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} can't be read as UTF-8 text in columns ({error}).") from error
