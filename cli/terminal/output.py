"""The one place that writes to the terminal: data to stdout, messages to stderr.

Everything that may come from a file (names, labels, errors) goes through `printable`, so that it
can't move the cursor, colour the screen, or change the direction of text.
"""

import csv
import io
import json
import os
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mixer_mlx.choices import Format

from .progress import Bar, bar

if TYPE_CHECKING:
    from mixer_mlx.config import MixerConfig
    from mixer_mlx.convert import Listener

_HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
_SPREADSHEET_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: object) -> str:
    """Text with control, direction and other invisible characters as escapes."""
    return "".join(
        _escape(ord(char)) if unicodedata.category(char) in _HIDDEN else char for char in str(text)
    )


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\U{code:08x}"


def say(text: object) -> None:
    """Write a line to stderr."""
    if not _mute:
        print(_wrapped(_speaker + printable(text), sys.stderr), file=sys.stderr, flush=True)


def _wrapped(text: str, stream: TextIO, indent: int = 0) -> str:
    """A line broken between words, if the stream is a terminal that is narrower."""
    width = _width(stream)
    if width is None or len(text) <= width:
        return text
    return textwrap.fill(
        text,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _width(stream: TextIO) -> int | None:
    """The columns of a terminal; None for a pipe or a file."""
    if not stream.isatty():
        return None
    wanted = os.environ.get("COLUMNS", "")
    return (
        int(wanted) if wanted.isdigit() else os.get_terminal_size(stream.fileno()).columns or None
    )


_speaker = ""
_mute = False


def speak_as(rank: int, *, mute: bool = False) -> None:
    """Begin lines with this process's rank; `mute` stops all output."""
    global _speaker, _mute
    _speaker, _mute = f"rank {rank}: " if rank else "", mute


def json_line(values: Mapping[str, object]) -> str:
    """One JSON object in one line, ASCII, without NaN."""
    return json.dumps(values, allow_nan=False) + "\n"


def csv_line(values: Iterable[object]) -> str:
    """One line of CSV; an apostrophe before a cell keeps a spreadsheet from running it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(_cell(value) for value in values)
    return text.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_SPREADSHEET_FORMULA) else text


def columns(rows: Sequence[Sequence[object]]) -> str:
    """Rows as lines with aligned columns, two spaces between them."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )
    return "".join(line.rstrip() + "\n" for line in lines)


def say_written(path: Path, config: "MixerConfig") -> None:
    """The last line of a command that wrote a model."""
    say(
        f"Wrote {path}: {config.title}, {config.num_parameters:,} parameters, "
        f"{config.num_classes} classes."
    )


@contextmanager
def fetching(*, quiet: bool) -> Iterator["Listener"]:
    """A listener that writes messages, and draws a progress bar once something is downloaded."""
    from mixer_mlx.convert import Listener

    if quiet or _speaker:
        yield Listener()
        return
    with ExitStack() as stack:
        bars: list[Bar] = []

        def show(done: int, total: int | None) -> None:
            if not bars:
                bars.append(stack.enter_context(bar(quiet=quiet)))
            of = "" if total is None else f" of {total / 2**20:,.1f}"
            bars[0](done, f"{done / 2**20:,.1f}{of} MiB", total)

        yield Listener(say, show)


def write_rows(rows: Sequence[Mapping[str, object]], style: Format) -> None:
    """Write records with the same keys to stdout as a table, JSON Lines, or CSV."""
    if style == "json":
        sys.stdout.writelines(map(json_line, rows))
    elif style == "csv":
        sys.stdout.writelines(csv_line(row) for row in [rows[0].keys(), *map(_values, rows)])
    else:
        sys.stdout.write(table(rows))


def write_fitting(rows: Sequence[Mapping[str, object]], least: Sequence[str]) -> None:
    """Write a table; a narrow terminal shows fewer columns, without the `least` important ones."""
    width, text, hidden = _width(sys.stdout), table(rows), 0
    while width and max(map(len, text.splitlines())) > width and hidden < len(least):
        hidden += 1
        kept = [key for key in rows[0] if key not in least[:hidden]]
        text = table([{key: row[key] for key in kept} for row in rows])
    sys.stdout.write(text)
    if hidden:
        say(f"Hidden in {width} columns: {', '.join(least[:hidden])}; --format csv has all.")


def write_text(text: str) -> None:
    """Write lines to stdout."""
    sys.stdout.writelines(f"{printable(line)}\n" for line in text.splitlines())


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Lines with aligned columns: numbers right-aligned, with the same decimals in all rows."""
    shown = []
    for key in rows[0]:
        values = [row[key] for row in rows]
        cells = [printable(cell) for cell in (key, *_uniform(values))]
        numeric = all(value is None or type(value) in (int, float) for value in values)
        width = max(map(len, cells))
        shown.append([cell.rjust(width) if numeric else cell.ljust(width) for cell in cells])
    return "".join("  ".join(row).rstrip() + "\n" for row in zip(*shown, strict=True))


def _uniform(values: Sequence[object]) -> list[str]:
    floats = [value for value in values if isinstance(value, float)]
    decimals = max((len(str(value).partition(".")[2]) for value in floats), default=0)
    return [
        f"{value:,.{decimals}f}"
        if isinstance(value, float)
        else ("" if value is None or value is False else _text(value))
        for value in values
    ]


def write_record(record: Mapping[str, object], style: Format) -> None:
    """Write a record to stdout: a line per key that isn't empty, a JSON object, or `key,value`."""
    if style == "json":
        sys.stdout.write(json_line(record))
        return
    pairs = list(_flat(record))
    if style == "csv":
        lines = [(key, str(value) if type(value) is int else _text(value)) for key, value in pairs]
        sys.stdout.writelines(map(csv_line, [("key", "value"), *lines]))
    else:
        filled = [(key, value) for key, value in pairs if value not in (None, "", [], ())]
        indent = max(len(key) for key, _ in filled) + 2
        for line in columns([(key, _short(value)) for key, value in filled]).splitlines():
            sys.stdout.write(_wrapped(line, sys.stdout, indent) + "\n")


def _short(value: object) -> str:
    return _text(float(f"{value:.6g}") if isinstance(value, float) else value)


def _values(row: Mapping[str, object]) -> list[object]:
    plain = (int, float, str)
    return [
        value if type(value) in plain else "" if value is None else _text(value)
        for value in row.values()
    ]


def _flat(record: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
