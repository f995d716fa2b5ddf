import pytest

from mixer_mlx.cli.terminal.output import csv_line, printable, table


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
