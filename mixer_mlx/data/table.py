"""Lists of images with their classes: CSV and TSV files, and the Hub's metadata.csv."""

import csv
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from mixer_mlx.errors import ConfigError

from .columns import LABEL_NAMES, PATH_NAMES, Columns, choose
from .dataset import WHOLE, Dataset, by_name
from .folders import Parts

METADATA = "metadata.csv"
_SPLIT = "split"

Row = tuple[int, Mapping[str, str]]
"""A line's number in the file, counted from 1, and its cells by column."""


def find_metadata(folder: Path, columns: Columns) -> Parts:
    """The parts of a folder that has a metadata.csv with labels, or has one in each part.

    Empty where there is none: metadata may also tell other things of images.
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
    parts = find(path, columns)
    if set(parts) != {WHOLE}:
        raise ConfigError(f"{path} has a column `{_SPLIT}`, but lies in a part; remove the column.")
    return parts[WHOLE]()


def find(path: Path, columns: Columns) -> Parts:
    """The parts of a list: by its column `split`, where it has one.

    Raises ConfigError that names the line for a cell that is empty or missing.
    """
    header = _header(path)
    what = str(path)
    image = choose("image", columns.image, _in(header, PATH_NAMES), PATH_NAMES, header, what)
    label = choose("label", columns.label, _in(header, LABEL_NAMES), LABEL_NAMES, header, what)
    split = next((name for name in header if name.lower() == _SPLIT), None)
    parts: dict[str, list[tuple[int, str, str]]] = {}
    for line, cells in _rows(path):
        for column in filter(None, (image, label, split)):
            if not cells.get(column):
                raise ConfigError(f"{path} line {line} has nothing in its column {column}; add it.")
        part = cells[split] if split else WHOLE
        parts.setdefault(part, []).append((line, cells[image], cells[label]))
    if not parts:
        raise ConfigError(f"{path} has no lines below its first; add a line for each image.")
    return {part: partial(_read, path, rows) for part, rows in parts.items()}


def _in(header: list[str], names: tuple[str, ...]) -> list[str]:
    return [name for name in header if name.lower() in names]


def _read(path: Path, rows: list[tuple[int, str, str]]) -> Dataset:
    images = [path.parent / name for _, name, _ in rows]
    for (line, name, _), image in zip(rows, images, strict=True):
        if not image.is_file():
            raise ConfigError(
                f"{path} line {line} names {name}, and there is no such file in {path.parent}; "
                "paths are relative to the list."
            )
    return by_name(images, [label for _, _, label in rows])


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
