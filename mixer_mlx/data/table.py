"""Lists of labelled images: CSV and TSV files, JSON Lines, and the Hub's metadata files."""

import codecs
import csv
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mixer_mlx.errors import ConfigError
from mixer_mlx.images.names import is_image
from mixer_mlx.labels import canonical

from .columns import LABEL_NAMES, PATH_NAMES, Columns, choose
from .dataset import UNSPLIT, Dataset, by_name
from .folders import DiskTree, Splits
from .notes import Notes

METADATA = ("metadata.csv", "metadata.jsonl")
SUFFIXES = (".csv", ".tsv", ".jsonl")
_SPLITS = ("split", "subset", "partition")
_HELD_OUT = {"is_valid": "val", "is_val": "val", "is_validation": "val", "is_test": "test"}
_YES, _NO = ("true", "1", "yes", "y"), ("false", "0", "no", "n")
_DELIMITERS = (",", ";", "\t", "|")

Row = tuple[int, Mapping[str, str]]
"""A line's number, from 1, and its cells by column."""


class _Line(NamedTuple):
    """A line's number, from 1, its image, its class, and its split."""

    number: int
    image: str
    label: str
    split: str


def find_metadata(folder: Path, columns: Columns, notes: Notes | None = None) -> Splits:
    """The splits of a folder with a metadata file that has labels, or with one in each split.

    Empty if there is none with labels.
    """
    notes = Notes() if notes is None else notes
    if own := _labelled(folder, columns):
        return find(own, columns, notes)
    folders = DiskTree(folder).folders()
    inner = {name: path for name in folders if (path := _labelled(folder / name, columns))}
    if inner:
        notes.form = f"{next(iter(inner.values())).name} in each split"
        others = folders.keys() - inner.keys()
        notes.left_out += [f"{name} (no metadata with labels)" for name in sorted(others)]
    return {name: partial(_read_whole, path, columns) for name, path in inner.items()}


def _labelled(folder: Path, columns: Columns) -> Path | None:
    """The metadata file in a folder, if it has a column of labels."""
    wanted = {columns.label} if columns.label else set(LABEL_NAMES)
    for path in (folder / name for name in METADATA):
        if path.is_file() and not wanted.isdisjoint(name.lower() for name in _Table(path).header):
            return path
    return None


def _read_whole(path: Path, columns: Columns) -> Dataset:
    splits = find(path, columns)
    if set(splits) != {UNSPLIT}:
        raise ConfigError(f"{path} lies in a split's folder; remove its column of splits.")
    return splits[UNSPLIT]()


def find(path: Path, columns: Columns, notes: Notes | None = None) -> Splits:
    """The splits of a list, by its column `split`, or `is_valid`, if it has one.

    Raises ConfigError that names the line for an empty or missing cell.
    """
    table = _Table(path, columns)
    splits: dict[str, list[_Line]] = {}
    for line in _lines(table, columns):
        splits.setdefault(line.split, []).append(line)
    if not splits:
        raise ConfigError(f"{path} has no lines below its header; add one for each image.")
    if notes is not None:
        notes.form = f"a list of {sum(map(len, splits.values())):,} images{table.remark}"
    return {split: partial(_read, path, rows) for split, rows in splits.items()}


def _lines(table: "_Table", columns: Columns) -> Iterator[_Line]:
    header, what = table.header, str(table.path)
    image = choose("image", columns.image, _in(header, PATH_NAMES), PATH_NAMES, header, what)
    label = choose("label", columns.label, _in(header, LABEL_NAMES), LABEL_NAMES, header, what)
    split = next(iter(_in(header, _SPLITS)), None)
    flags = [] if split else _in(header, tuple(_HELD_OUT))
    for number, cells in table.rows():
        for column in filter(None, (image, label, split, *flags)):
            if not cells.get(column):
                raise ConfigError(f"{what} line {number} lacks a value for {column}; add one.")
        chosen = canonical(cells[split]) if split else UNSPLIT
        if flags:
            held = [flag for flag in flags if _is_yes(cells[flag], flag, f"{what} line {number}")]
            chosen = _HELD_OUT[held[0].lower()] if held else "train"
        yield _Line(number, cells[image], cells[label], chosen)


def _is_yes(cell: str, column: str, where: str) -> bool:
    text = cell.lower().removesuffix(".0")
    if text in (*_YES, *_NO):
        return text in _YES
    raise ConfigError(f"Expected true or false in column {column} of {where}, not {cell}.")


def _in(header: Sequence[str], names: Sequence[str]) -> list[str]:
    return [name for name in header if name.lower() in names]


def _read(path: Path, lines: list[_Line]) -> Dataset:
    """The images of some lines. Missing files stay in, to be reported as unreadable ones are.

    Raises ConfigError if all are missing.
    """
    images = [_image(path.parent, line.image) for line in lines]
    if not any(image.is_file() for image in images):
        raise ConfigError(
            f"{path} line {lines[0].number} names {lines[0].image}, which isn't in {path.parent}, "
            "and no other line names a file there; write paths relative to the list."
        )
    return by_name(images, [line.label for line in lines])


def _image(folder: Path, name: str) -> Path:
    """The file of that name; as written if there is none.

    Backslashes, as Windows writes them, separate if no file has them; names may have either of
    Unicode's forms, which macOS takes for one and other systems don't.
    """
    names = (name, name.replace("\\", "/"))
    forms = [*names, *(unicodedata.normalize(form, n) for form in ("NFC", "NFD") for n in names)]
    return next((path for form in forms if (path := folder / form).is_file()), folder / name)


class _Table:
    """A list's columns and rows; `remark` says what was assumed to read it."""

    def __init__(self, path: Path, columns: Columns | None = None) -> None:
        """Raises ConfigError."""
        self.path, self.remark, self._skip = path, "", 1
        self._encoding = _encoding(path)
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        if path.suffix.lower() == ".jsonl":
            keys = (key for _, cells in self._objects() for key in cells)
            self.header: Sequence[str] = list(dict.fromkeys(keys))
            return
        if other := self._other_delimiter():
            self._delimiter = other
            self.remark = f" separated by {'tabs' if other == chr(9) else other}"
        self.header = next((cells for _, cells in self._cells()), [])
        if columns and not (columns.image or columns.label):
            self._check_header()

    def _other_delimiter(self) -> str | None:
        """The delimiter of a first line without the usual one."""
        try:
            with self.path.open(encoding=self._encoding) as file:
                first = re.sub('"[^"]*"', "", file.readline())
        except (OSError, UnicodeDecodeError):
            return None  # reading the cells raises the reason
        found = (delimiter for delimiter in _DELIMITERS if delimiter in first)
        return None if self._delimiter in first else max(found, key=first.count, default=None)

    def _check_header(self) -> None:
        """Take a first line with an image's name for a row. Raises ConfigError if it is unclear."""
        images = [is_image(Path(cell.replace("\\", "/")).name) for cell in self.header]
        if not any(images) or _in(self.header, (*PATH_NAMES, *LABEL_NAMES)):
            return
        if len(self.header) != 2 or sum(images) != 1:
            raise ConfigError(
                f"Expected the names of columns in the first line of {self.path}, e.g. path,label, "
                f"not {self._delimiter.join(self.header)}; add a line with them."
            )
        self.header = ["path", "label"] if images[0] else ["label", "path"]
        self.remark += " without a header"
        self._skip = 0

    def rows(self) -> Iterator[Row]:
        """Rows that aren't empty. Raises ConfigError."""
        if self.path.suffix.lower() == ".jsonl":
            yield from self._objects()
            return
        for index, (number, cells) in enumerate(self._cells()):
            if index >= self._skip and any(cells):
                yield number, dict(zip(self.header, cells, strict=False))

    def _objects(self) -> Iterator[Row]:
        """Rows of JSON Lines, with values as text. Raises ConfigError."""
        number = 0
        try:
            with self.path.open(encoding=self._encoding) as file:
                for number, text in enumerate(file, start=1):
                    if text.strip():
                        values = json.loads(text).items()
                        yield number, {key: _text(value) for key, value in values}
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise ConfigError(
                f"{self.path} line {number} isn't a JSON object in UTF-8 ({error}); correct it."
            ) from error

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        """Numbers and cells. Raises ConfigError."""
        try:
            with self.path.open(encoding=self._encoding, newline="") as file:
                reader = csv.reader(file, delimiter=self._delimiter, strict=True)
                for cells in reader:
                    yield reader.line_num, [cell.strip() for cell in cells]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(
                f"{self.path} can't be read as UTF-8 text in columns ({error}); save it as CSV in "
                "UTF-8."
            ) from error


def _encoding(path: Path) -> str:
    """UTF-8, or UTF-16 if the file begins as Excel's "Unicode text" does. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            first = file.read(2)
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}).") from error
    return "utf-16" if first in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _text(value: object) -> str:
    """A JSON value as a cell; "" for null, lists and objects."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or isinstance(value, list | dict) else str(value)
