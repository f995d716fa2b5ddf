import csv
import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

TOP5 = re.compile(r"\A\S*cat\.png\n(  [a-z]+ +\d+\.\d%\n){5}\Z")


def test_table(mixer, cat: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("predict", cat, "-m", "cifar10")
    assert (run.code, run.err) == (0, "")
    assert TOP5.match(run.out)


def test_json_is_one_object_in_a_line(mixer, cat: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("predict", cat, cat, "-m", "cifar10", "--format", "json", "-k", 2)
    first, second = map(json.loads, run.out.splitlines())
    assert first == second
    assert list(first) == ["image", "model", "predictions"]
    assert first["image"] == str(cat)
    assert first["model"] == "cifar10"
    assert [list(entry) for entry in first["predictions"]] == [
        ["index", "label", "probability"]
    ] * 2
    assert first["predictions"][0]["probability"] >= first["predictions"][1]["probability"]


def test_csv(mixer, cat: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    bad = tmp_path / "=bad.png"
    bad.write_text("text")
    run = mixer("predict", cat, bad, "-m", "cifar10", "--format", "csv", "-k", 1)
    rows = list(csv.DictReader(io.StringIO(run.out)))
    assert run.code == 1
    assert list(rows[0]) == ["image", "rank", "index", "label", "probability", "error"]
    assert (rows[0]["rank"], rows[0]["error"]) == ("1", "")
    assert 0 < float(rows[0]["probability"]) <= 1
    assert rows[1]["image"] == str(bad)
    assert rows[1]["error"]


def test_output_file_is_whole_and_never_replaced_unasked(  # type: ignore[no-untyped-def]
    mixer, cat: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    args = ("predict", cat, "-m", "cifar10", "--format", "json", "-o", out)
    assert mixer(*args).code == 0
    assert json.loads(out.read_text())["image"] == str(cat)
    out.write_text("precious")
    run = mixer(*args)
    assert run.code == 1
    assert "--force" in run.err
    assert out.read_text() == "precious"
    assert mixer(*args, "--force").code == 0
    assert out.read_text() != "precious"
    assert os.listdir(tmp_path) == ["out.json"]


def test_folders_give_their_images_sorted(mixer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for name in ("b.JPG", "a/z.png", "a/.hidden.png", ".git/x.png", "notes.txt", "a/c.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        if path.suffix != ".txt":
            Image.new("RGB", (40, 30), "red").save(path, path.suffix[1:].replace("JPG", "jpeg"))
    run = mixer("predict", tmp_path, "-m", "cifar10", "--format", "json")
    names = [json.loads(line)["image"] for line in run.out.splitlines()]
    assert names == [f"{tmp_path}/{name}" for name in ("b.JPG", "a/c.webp", "a/z.png")]


def test_an_empty_folder_is_said(mixer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("predict", tmp_path, "-m", "cifar10")
    assert run.code == 1
    assert "No images found" in run.err


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_one_good_image_among_ten_bad_ones(cat: Path, tmp_path: Path) -> None:
    """As a process of its own, so that what C libraries write is seen too."""
    good = cat.read_bytes()
    bad = {
        "truncated.png": good[: len(good) // 2],
        "truncated.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
        "empty.jpg": b"",
        "text.png": b"This is no image.",
        "eps.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "huge.png": png_header(60_000, 60_000),
        "\x1b[2J\x1b[31mred.jpg": b"x",
        "[red]markup[!].jpg": b"x",
    }
    (tmp_path / "good.png").write_bytes(good)
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    for style in ("table", "json", "csv"):
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                "mixer_mlx",
                "predict",
                tmp_path,
                "-m",
                "cifar10",
                "--format",
                style,
            ],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert run.returncode == 1
        assert b"\x1b" not in run.stdout + run.stderr
        assert b"Traceback" not in run.stderr
        assert b"10 of 11 images can't be read." in run.stderr
        if style == "table":
            assert run.stdout.count(b"%") == 5
            errors = run.stderr.decode().splitlines()[:-1]
            assert len(errors) == 10
            assert sum("[red]markup[!].jpg" in line for line in errors) == 1
            assert sum(r"\x1b[2J\x1b[31mred.jpg" in line for line in errors) == 1
        if style == "json":
            lines = [json.loads(line) for line in run.stdout.splitlines()]
            assert sum("predictions" in line for line in lines) == 1
            assert sum("error" in line for line in lines) == 10


def test_a_reader_that_leaves_early_is_no_failure(cat: Path) -> None:
    command = f"{sys.executable} -m mixer_mlx predict {' '.join([str(cat)] * 40)} -m cifar10 -b 1"
    run = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_a_foreign_weights_file_is_a_model(mixer, golden: Path, cat: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("predict", cat, "-m", golden / "jax_square.npz", "-k", 1)
    assert run.code == 0
    assert "Assumed: preprocessing" in run.err
    assert re.search(r"class \d", run.out)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_agrees(mixer, cat: Path, dtype: str) -> None:  # type: ignore[no-untyped-def]
    args = ("predict", cat, "-m", "cifar10", "--format", "json", "-k", 10)
    full, half = (json.loads(mixer(*args, "--dtype", d).out) for d in ("float32", dtype))
    full, half = (
        {entry["index"]: entry["probability"] for entry in result["predictions"]}
        for result in (full, half)
    )
    assert full.keys() == half.keys()
    assert max(abs(full[i] - half[i]) for i in full) < 0.02


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["predict"], 2, "IMAGE"),
        (["predict", "a.png", "-k", "0"], 2, "-k"),
        (["predict", "a.png", "--dtype", "int8"], 2, "int8"),
        (["predict", "a.png", "--format", "xml"], 2, "xml"),
        (["predict", ".", "-m", "resnet50"], 1, "mixer models"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_wrong_usage(mixer, args: list[str], code: int, says: str) -> None:  # type: ignore[no-untyped-def]
    run = mixer(*args)
    assert run.code == code
    assert says in run.err
    assert "Traceback" not in run.err
