"""Texts and outputs that are made to harm."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from mixer_mlx import labels
from mixer_mlx.checkpoint import read_header, read_info
from mixer_mlx.errors import CheckpointError, ConfigError
from mixer_mlx.runtime.documents import as_dataclass, parse_json, read_json, read_text, read_toml
from mixer_mlx.runtime.files import beside, locked_folder, open_output, open_regular
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.run_log import Log

LONG = "1" * 400
TEXTS = {
    "digits": ('{"a": ' + LONG + "}", "400 digits"),
    "more digits than Python reads": ('{"a": ' + "1" * 5000 + "}", "5,000 digits"),
    "an exponent": ('{"a": 1e999}', "out of range"),
    "depth": ('{"a": ' + "[" * 100_000, "too deeply"),
    "depth that Python reads": ('{"a": ' + "[" * 80 + "]" * 80 + "}", "too deeply"),
    "NaN": ('{"a": NaN}', "isn't JSON"),
    "a repeated key": ('{"a": 1, "a": 2}', "repeated"),
    "no object": ("[1]", "must contain a JSON object"),
    "no JSON": ("{", "isn't valid JSON"),
}


@pytest.mark.parametrize(("text", "why"), TEXTS.values(), ids=TEXTS)
def test_what_json_may_not_be(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"^it .*{why}"):
        read_json(path)
    with pytest.raises(CheckpointError, match=why):
        read_info(tmp_path)


def test_numbers_stay_what_they_are() -> None:
    assert parse_json(f'{{"a": [{2**63}, 1.5, -3]}}') == {"a": [2**63, 1.5, -3]}


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000,
        "a = " + "1" * 5000,
        "a = " + "1" * 400,
        "a." * 80 + "a = 1",
        "a = 1\na = 2",
        "a = ",
    ],
)
def test_what_toml_may_not_be(text: str, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"^it isn't valid TOML"):
        read_toml(path)
    with pytest.raises(ConfigError, match=r"my\.toml isn't a readable TOML file"):
        Recipe(epochs=1).with_toml(path)


def test_toml_is_short(tmp_path: Path) -> None:
    """50,000 dots in a key would take 20 seconds, 100,000 four times that."""
    path = tmp_path / "my.toml"
    path.write_text("a." * 50_000 + "a = 1")
    with pytest.raises(ConfigError, match=r"^it is larger than 32,768 bytes\.$"):
        read_toml(path)


def test_texts_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / "text"
    for data, encoding, why in ((b"\xff", "utf-8", "UTF-8"), (b"a" * 11, "ascii", "larger than")):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=f"^it .*{why}"):
            read_text(path, encoding, limit=10)
    with pytest.raises(ConfigError, match="No such file"):
        read_text(tmp_path / "missing")
    path.write_text("[" * 100_000)
    path.rename(tmp_path / "names.json")
    with pytest.raises(ConfigError, match="too deeply"):
        labels.read_file(tmp_path / "names.json")


def test_no_fifo_blocks(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "log.jsonl"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="isn't a model folder"):
        read_info(tmp_path)
    for read in (read_json, open_regular):
        with pytest.raises((ConfigError, OSError), match="a folder, a pipe or a device"):
            read(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="pipe"):
        read_header(tmp_path / "model.safetensors")
    with pytest.raises(OSError, match=r"pipe|No such device"), Log(tmp_path / "log.jsonl").opened():
        pass


@pytest.mark.parametrize("mode", ["wb", "ab", "r+b"])
def test_no_link_in_an_outputs_place_is_followed(mode: str, tmp_path: Path) -> None:
    outside, link = tmp_path / "outside", tmp_path / "output"
    link.symlink_to(outside)
    with pytest.raises(OSError, match="it is a link; remove it"):
        open_output(link, mode)
    assert not outside.exists()
    link.unlink()
    for expected in (b"x", b"x" if mode != "ab" else b"xx"):
        with open_output(link, mode) as file:
            file.write(b"x")
        assert link.read_bytes() == expected
    with pytest.raises(OSError, match=r"folder|directory"):
        open_output(tmp_path, mode)


def test_a_folder_is_locked_once(tmp_path: Path) -> None:
    with locked_folder(tmp_path) as first, locked_folder(tmp_path) as second:
        assert (first, second) == (True, False)
    with locked_folder(tmp_path) as again:
        assert again


@dataclass(frozen=True)
class _Record:
    step: int
    rate: float = 0.0
    best: tuple[float, float] | None = None
    name: str | None = None
    sizes: Mapping[str, int] | None = None


def test_an_object_becomes_a_dataclass() -> None:
    values = {"step": 3, "rate": 1, "best": [0.5, -1], "sizes": {"a": 1}}
    assert as_dataclass(_Record, values) == _Record(3, 1, (0.5, -1), None, {"a": 1})


@pytest.mark.parametrize(
    "values",
    [
        [], None, {}, {"step": None}, {"step": True}, {"step": 1.0}, {"step": "1"}, {"step": [1]},
        {"step": 1, "rate": "x"}, {"step": 1, "best": [1]}, {"step": 1, "best": [1, "x"]},
        {"step": 1, "best": 1}, {"step": 1, "name": 3}, {"step": 1, "sizes": {"a": "b"}},
        {"step": 1, "other": 1},
    ],
)  # fmt: skip
def test_an_object_of_other_types_is_refused(values: object) -> None:
    with pytest.raises(ConfigError, match=r"^it"):
        as_dataclass(_Record, values)


def test_a_name_beside_another_is_never_too_long(tmp_path: Path) -> None:
    assert beside(Path("a/b.json"), ".part").name == "b.json.part"
    for name in ("y" * 255, "\u732b" * 85, "y" * 250):
        names = {beside(tmp_path / (name[:-1] + last), ".part", ".").name for last in "ab"}
        assert len(names) == 2
        for found in names:
            (tmp_path / found).touch()
