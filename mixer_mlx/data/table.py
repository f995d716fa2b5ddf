"""Lists of labelled images: CSV and TSV files, JSON Lines, and the Hub's metadata files."""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TextIO

from mixer_mlx.errors import ConfigError, ImageError
from mixer_mlx.images.names import is_image
from mixer_mlx.images.pillow import reason
from mixer_mlx.labels import canonical
from mixer_mlx.runtime.documents import parse_json

from .columns import LABEL_NAMES, PATH_NAMES, Columns, choose
from .dataset import UNSPLIT, Dataset, Entry, by_name, family
from .folders import METADATA, DiskTree, Splits, Tree
from .notes import Notes

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


def find_metadata(tree: Tree, columns: Columns, notes: Notes | None = None) -> Splits:
    """The splits of a folder with a metadata file that has labels, or with one in each split.

    One more folder may enclose it. Empty if there is none with labels.
    """
    notes = Notes() if notes is None else notes
    if own := _labelled(tree, columns):
        return _find(tree, own, columns, notes)
    folders = tree.folders()
    if len(folders) == 1 and not tree.loose_images():
        ((name, only),) = folders.items()
        if not family(name):
            return find_metadata(only, columns, notes)
    inner = {name: list_ for name in folders if (list_ := _labelled(folders[name], columns))}
    if inner:
        notes.form = f"{next(iter(inner.values()))} in each split"
        others = folders.keys() - inner.keys()
        notes.left_out += [f"{name} (no metadata with labels)" for name in sorted(others)]
    return {name: partial(_read_whole, folders[name], inner[name], columns) for name in inner}


def _labelled(tree: Tree, columns: Columns) -> str | None:
    """The name of the metadata file in a folder, if it has a column of labels."""
    wanted = {columns.label} if columns.label else set(LABEL_NAMES)
    for name in METADATA:
        if tree.list_file(name):
            header = _Table(tree, name).header
            if not wanted.isdisjoint(column.lower() for column in header):
                return name
    return None


def _read_whole(tree: Tree, name: str, columns: Columns) -> Dataset:
    splits = _find(tree, name, columns)
    if set(splits) != {UNSPLIT}:
        raise ConfigError(f"{tree}/{name} lies in a split's folder; remove its column of splits.")
    return splits[UNSPLIT]()


def find(path: Path, columns: Columns, notes: Notes | None = None) -> Splits:
    """The splits of a list, by its column `split`, or `is_valid`, if it has one.

    Raises ConfigError that names the line for an empty or missing cell.
    """
    return _find(DiskTree(path.parent), path.name, columns, notes)


def _find(tree: Tree, name: str, columns: Columns, notes: Notes | None = None) -> Splits:
    table = _Table(tree, name, columns)
    splits: dict[str, list[_Line]] = {}
    for line in _lines(table, columns):
        splits.setdefault(line.split, []).append(line)
    if not splits:
        raise ConfigError(f"{table.path} has no lines below its header; add one for each image.")
    if notes is not None:
        notes.form = f"a list of {sum(map(len, splits.values())):,} images{table.remark}"
    return {split: partial(_read, tree, table.path, rows) for split, rows in splits.items()}


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


def _read(tree: Tree, path: Path, lines: list[_Line]) -> Dataset:
    """The images of some lines. Missing files stay in, to be reported as unreadable ones are.

    Raises ConfigError if all are missing.
    """
    images = [_image(tree, line.image) for line in lines]
    if not any(images):
        raise ConfigError(
            f"{path} line {lines[0].number} names {lines[0].image}, which isn't in {path.parent}, "
            "and no other line names a file there; write paths relative to the list."
        )
    entries = [image or tree.missing(line.image) for image, line in zip(images, lines, strict=True)]
    return by_name(entries, [line.label for line in lines])


def _image(tree: Tree, name: str) -> Entry | None:
    """The file of that name.

    Backslashes, as Windows writes them, separate if no file has them; names may have either of
    Unicode's forms, which macOS takes for one and other systems don't.
    """
    names = (name, name.replace("\\", "/"))
    forms = [*names, *(unicodedata.normalize(form, n) for form in ("NFC", "NFD") for n in names)]
    return next((image for form in forms if (image := tree.image(form))), None)


class _Table:
    """A list's columns and rows; `remark` says what was assumed to read it."""

    def __init__(self, tree: Tree, name: str, columns: Columns | None = None) -> None:
        """Raises ConfigError."""
        self.path, self.remark, self._skip = Path(str(tree)) / name, "", 1
        self._open = tree.list_file(name) or (lambda: self.path.open("rb"))
        self._encoding = self._find_encoding()
        self._delimiter = "\t" if self.path.suffix.lower() == ".tsv" else ","
        if self.path.suffix.lower() == ".jsonl":
            keys = (key for _, cells in self._objects() for key in cells)
            self.header: Sequence[str] = list(dict.fromkeys(keys))
            return
        if other := self._other_delimiter():
            self._delimiter = other
            self.remark = f" separated by {'tabs' if other == chr(9) else other}"
        self.header = next((cells for _, cells in self._cells()), [])
        if columns and not (columns.image or columns.label):
            self._check_header()

    def _text(self) -> TextIO:
        """The list, opened. Raises OSError, and ImageError for a damaged archive."""
        return io.TextIOWrapper(self._open(), self._encoding, newline="")

    def _find_encoding(self) -> str:
        """UTF-8, or UTF-16 as Excel's "Unicode text" begins. Raises ConfigError."""
        try:
            with self._open() as file:
                first = file.read(2)
        except (OSError, ImageError) as error:
            raise ConfigError(f"{self.path} can't be read ({reason(error)}).") from error
        return "utf-16" if first in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"

    def _other_delimiter(self) -> str | None:
        """The delimiter of a first line without the usual one."""
        try:
            with self._text() as file:
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
            with self._text() as file:
                for number, text in enumerate(file, start=1):
                    if text.strip():
                        values = parse_json(text, nan=True).items()
                        yield number, {key: _cell(value) for key, value in values}
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise ConfigError(
                f"{self.path} line {number} isn't a JSON object in UTF-8 ({error}); correct it."
            ) from error

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        """Numbers and cells. Raises ConfigError."""
        try:
            with self._text() as file:
                reader = csv.reader(file, delimiter=self._delimiter, strict=True)
                for cells in reader:
                    yield reader.line_num, [cell.strip() for cell in cells]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(
                f"{self.path} can't be read as UTF-8 text in columns ({error}); save it as CSV in "
                "UTF-8."
            ) from error


def _cell(value: object) -> str:
    """A JSON value as a cell; "" for null, lists and objects."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or isinstance(value, list | dict) else str(value)
