import io
import sys

import pytest

from mixer_mlx.cli.info import models
from mixer_mlx.cli.terminal.output import csv_line, printable, say, table, write_record


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def narrow(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 80 columns, for stdout and stderr."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "80")
    return screen


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode 猫 🐈", "plain, ünïcode 猫 🐈"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b31m", r"\x9b31m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\rc\td", r"a\x0ab\x0dc\x09d"),
        ("abc\u202egpj.exe", r"abc\U0000202egpj.exe"),
        ("zero\u200bwidth", r"zero\U0000200bwidth"),
        ("\u2028", r"\U00002028"),
        ("\udcff", r"\U0000dcff"),
        ("[red]x[/red]", "[red]x[/red]"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).encode("utf-8")


def test_a_spreadsheet_runs_nothing() -> None:
    assert csv_line(["=1+1", "@x", "-2", "ok", 3, -0.5]) == "'=1+1,'@x,'-2,ok,3,-0.5\n"
    assert csv_line(['a"b', "c,d"]) == '"a""b","c,d"\n'


def test_a_table_shows_zero_and_leaves_out_what_is_empty() -> None:
    rows = [
        {"name": "a", "images": 0, "broken": False},
        {"name": "b", "images": 1200, "broken": True},
    ]
    assert table(rows).splitlines() == [
        "name  images  broken",
        "a          0",
        "b      1,200  yes",
    ]


def test_a_message_breaks_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = narrow(monkeypatch)
    say("unbroken " * 8 + "photos/a-file-of-a-long-name.jpg  last")
    first, second = terminal.getvalue().splitlines()
    assert first == ("unbroken " * 8).strip()
    assert second == "photos/a-file-of-a-long-name.jpg  last"
    say("x" * 100)
    assert terminal.getvalue().endswith("\n" + "x" * 100 + "\n")


def test_models_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = narrow(monkeypatch)
    models()
    header, *lines, hidden = terminal.getvalue().splitlines()
    assert header.split() == ["name", "variant", "classes", "size", "top1"]
    assert max(map(len, lines)) <= 80
    assert hidden.startswith("Hidden in 80 columns: licence, on_disk, note, real;")
    monkeypatch.setenv("COLUMNS", "200")
    models()
    assert terminal.getvalue().splitlines()[len(lines) + 2].split()[-2:] == ["on_disk", "note"]


def test_a_record_breaks_below_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = narrow(monkeypatch)
    write_record({"labels": "great white shark, " * 6, "temperature": 0.8994419661}, "table")
    first, second, last = terminal.getvalue().splitlines()
    assert max(map(len, (first, second))) <= 80
    assert second.startswith(" " * 13 + "white shark")
    assert last == "temperature  0.899442"


def test_models_are_whole_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    models()
    out, err = capsys.readouterr()
    assert out.splitlines()[0].endswith("note")
    assert not err
