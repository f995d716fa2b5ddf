"""Formats by suffix, Parquet, sheets, names that are no text, progress."""

import csv
import json
import os
import pty
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

COMMAND = [sys.executable, "-m", "mixer_mlx", "predict", "-m", "cifar10"]


@pytest.mark.parametrize(
    ("name", "args", "starts"),
    [
        ("o.json", [], '{"image"'),
        ("o.JSONL", [], '{"image"'),
        ("o.csv", [], "image,rank"),
        ("o.csv", ["--format", "json"], '{"image"'),
        ("o.txt", [], "/"),
    ],
)
def test_the_suffix_decides_unless_told(  # type: ignore[no-untyped-def]
    mixer, cat: Path, tmp_path: Path, name: str, args: list[str], starts: str
) -> None:
    assert mixer("predict", cat, "-m", "cifar10", "-o", tmp_path / name, *args).code == 0
    assert (tmp_path / name).read_text().startswith(starts)
    assert os.listdir(tmp_path) == [name]


def test_parquet_holds_what_csv_holds(  # type: ignore[no-untyped-def]
    mixer, album: Path, tmp_path: Path, odd_name: str
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="NOT RUN: needs the extra parquet")
    odd = album / f"{odd_name}.png"
    (album / "00.png").rename(odd)
    for name in ("o.csv", "o.parquet"):
        args = ("predict", album, odd, "-m", "cifar10", "--threshold", 0.2, "-o", tmp_path / name)
        assert mixer(*args).code == 1
    table = parquet.read_table(tmp_path / "o.parquet")
    types = ["string", "int32", "int32", "string", "float", "string"]
    assert [str(field.type) for field in table.schema] == types
    rows = list(csv.reader((tmp_path / "o.csv").open()))
    assert table.column_names == rows[0]
    found = [list(row.values()) for row in table.to_pylist()]
    texts = [["" if v is None else v for v in row] for row in found]
    for ours, theirs in zip(texts, rows[1:], strict=True):
        assert ours[0].replace("\\udc", "\\U0000dc") == theirs[0]
        assert [str(v) for v in ours[1:4]] == theirs[1:4]
        assert ours[4] == (pytest.approx(float(theirs[4])) if theirs[4] else "")
        assert ours[5] == theirs[5]


def test_parquet_is_written_in_bounded_groups(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="NOT RUN: needs the extra parquet")
    from mixer_mlx import Prediction, Result
    from mixer_mlx.cli.predict.write import ParquetRows

    result = Result("a.png", (Prediction(1, "one", 0.5), Prediction(2, "two", 0.25)))
    with (tmp_path / "o.parquet").open("wb") as file, closing(ParquetRows(file)) as rows:
        for _ in range(20_000):
            rows.add(result)
    found = parquet.ParquetFile(tmp_path / "o.parquet").metadata
    groups = [found.row_group(n).num_rows for n in range(found.num_row_groups)]
    assert groups == [16_384, 16_384, 7_232]


def test_a_missing_extra_is_named(  # type: ignore[no-untyped-def]
    mixer, cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    run = mixer("predict", cat, "-m", "cifar10", "-o", tmp_path / "o.parquet")
    assert run.code == 1
    assert "pip install 'mixer-mlx[parquet]'" in run.err
    assert os.listdir(tmp_path) == []


def test_names_that_are_no_text_survive(  # type: ignore[no-untyped-def]
    mixer, cat: Path, tmp_path: Path, odd_name: str
) -> None:
    name = os.fsencode(tmp_path / f"{odd_name}\n.png")
    Path(os.fsdecode(name)).write_bytes(cat.read_bytes())
    for args in ([], ["-o", tmp_path / "o.json"]):
        run = mixer("predict", os.fsdecode(name), "-m", "cifar10", "--format", "json", *args)
        line = run.out or (tmp_path / "o.json").read_text("ascii")
        assert line.isascii()
        assert os.fsencode(json.loads(line)["image"]) == name


def test_a_sheet_has_pages(mixer, album: Path, cat: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    sheet = tmp_path / "sheet.png"
    args = ("predict", album, *[cat] * 100, "-m", "cifar10", "--sheet", sheet)
    assert mixer(*args).code == 1
    assert sorted(os.listdir(tmp_path)) == ["album", "sheet-2.png", "sheet.png"]
    with Image.open(sheet) as first, Image.open(tmp_path / "sheet-2.png") as second:
        assert first.size == (10 * 176 + 16, 10 * 222 + 16)
        assert second.size == (4 * 176 + 16, 3 * 222 + 16)
    sheet.unlink()
    run = mixer(*args)
    assert run.code == 1
    assert "sheet-2.png already exists" in run.err
    assert "--force" in run.err
    (tmp_path / "sheet-2.png").write_text("old")
    mixer("predict", cat, "-m", "cifar10", "--sheet", sheet, "--force")
    assert (tmp_path / "sheet-2.png").read_text() == "old"
    assert sheet.exists()


def test_a_sheet_is_a_png(mixer, cat: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("predict", cat, "-m", "cifar10", "--sheet", "sheet.jpg")
    assert run.code == 1
    assert "sheet.png" in run.err


def on_a_terminal(*args: object, **environment: str) -> bytes:
    """What the command shows where stderr is a terminal; stdout goes nowhere."""
    master, terminal = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | environment
    with subprocess.Popen(
        [*COMMAND, *map(str, args)],
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        env={**env, "TERM": "xterm-256color", "COLUMNS": "100"},
    ) as run:
        os.close(terminal)
        shown = b""
        try:
            while chunk := os.read(master, 2**16):
                shown += chunk
        except OSError:  # what Linux says at the end
            pass
        finally:
            os.close(master)
    assert run.returncode == 1
    return shown


def test_progress_is_shown_on_a_terminal_alone(album: Path) -> None:
    shown = on_a_terminal(album)
    assert b"11 of 11 images, 1 failed" in shown
    assert b"images/s" not in shown  # eleven are too few to tell a rate
    assert shown.endswith(b"1 of 11 images can't be read.\r\n")
    assert b"\x1b[32m" in shown
    assert b"\x1b[38;" not in shown  # a colour that isn't of the terminal's own palette
    plain = on_a_terminal(album, NO_COLOR="1")
    assert b"11 of 11 images, 1 failed" in plain
    assert not re.search(rb"\x1b\[[349]\d", plain)
    assert b"11 of 11" not in on_a_terminal(album, "--quiet")
    run = subprocess.run([*COMMAND, album], capture_output=True, check=False)
    assert run.stderr.splitlines()[1:] == [b"1 of 11 images can't be read."]


def test_closed_streams_are_no_crash(cat: Path, tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m mixer_mlx predict {cat} -m cifar10 -o {tmp_path}/o.csv"
    run = subprocess.run(["sh", "-c", f"{command} <&- >&- 2>&-"], check=False)
    assert run.returncode == 0
    assert (tmp_path / "o.csv").read_text().count("\n") == 6
