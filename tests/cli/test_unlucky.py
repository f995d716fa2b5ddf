"""Names, folders and caches that the system refuses: one sentence each, no traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixer_mlx.convert.fetch import cache
from mixer_mlx.errors import SourceError

Mixer = Callable[..., "tuple[int, str, str]"]
LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", LONG, "-m", "cifar10"],
        ["predict", "CAT", "-m", "cifar10", "-o", f"{LONG}.jsonl"],
        ["predict", "CAT", "-m", "cifar10", "--sheet", f"{LONG}.png"],
        ["predict", "CAT", "-m", "cifar10", "--sort-into", LONG],
        ["predict", "CAT", "-m", f"./{LONG}"],
        ["convert", LONG, "out"],
        ["convert", "cifar10", LONG],
        ["resize", "cifar10", LONG, "--image-size", "64"],
        ["check", LONG],
        ["evaluate", LONG, "-m", "cifar10"],
        ["fine-tune", LONG, "-m", "cifar10"],
        ["benchmark", "-o", f"{LONG}.json"],
        ["info", LONG],
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"),
)
def test_a_name_that_is_too_long(
    arguments: list[str], album: Path, mixer: Mixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(album.parent)
    cat = str(album / "00.png")
    code, _, err = mixer(*(cat if argument == "CAT" else argument for argument in arguments))
    assert code in (1, 2)
    assert "Traceback" not in err
    assert err.strip()


def test_the_longest_name_is_written(album: Path, mixer: Mixer) -> None:
    """With .part it would be too long."""
    out = album.parent / ("y" * 249 + ".jsonl")
    assert mixer("predict", str(album / "00.png"), "-m", "cifar10", "-o", str(out))[0] == 0
    assert out.read_text().count("\n") == 1
    assert [path.name for path in album.parent.iterdir() if path != album] == [out.name]


def test_a_cache_below_a_file(
    album: Path, mixer: Mixer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MIXER_MLX_CACHE", str(tmp_path / "file" / "cache"))
    code, _, err = mixer("predict", str(album / "00.png"), "-m", "mixer_b16_224.sam")
    assert code == 1
    assert "set MIXER_MLX_CACHE" in err
    assert mixer("cache", "list")[0] == 0


def test_a_cache_of_odd_entries(
    mixer: Mixer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Links, dangling links, and a pipe in a model's place."""
    models, elsewhere = tmp_path / "cache" / "models", tmp_path / "elsewhere"
    (models / "m--float32--z").mkdir(parents=True)
    (elsewhere / "kept").mkdir(parents=True)
    (models / "d--float32--z").symlink_to("nowhere")
    (models / "l--float32--z").symlink_to(elsewhere)
    (models / "m--float32--z" / "config.json").symlink_to("nowhere")
    os.mkfifo(models / "m--float32--z" / "SHA256SUMS")
    monkeypatch.setenv("MIXER_MLX_CACHE", str(tmp_path / "cache"))
    assert mixer("cache", "list")[0] == 0
    code, out, _ = mixer("cache", "verify")
    assert (code, "a pipe or a device" in out) == (1, True)
    assert mixer("cache", "remove", "--all")[0] == 0
    assert (elsewhere / "kept").is_dir()
    assert not (models / "l--float32--z").is_symlink()


def test_no_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MIXER_MLX_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(SourceError, match="set MIXER_MLX_CACHE"):
        cache.root()


def test_a_poor_terminal(album: Path, tmp_path: Path) -> None:
    """ASCII, 20 columns, no cursor: names come in escapes, and lead back to the files."""
    image = tmp_path / "\u00e9 \u732b.png"
    (album / "00.png").rename(image)
    poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run = subprocess.run(
        [sys.executable, "-m", "mixer_mlx", "predict", image, "-m", "cifar10", "--format", "json"],
        env={**os.environ, **poor, "TERM": "dumb", "COLUMNS": "20"},
        capture_output=True,
        check=True,
    )
    assert run.stderr == b""
    name = json.loads(run.stdout.decode("ascii"))["image"]
    assert os.fsencode(image) == name.encode("utf-8", "surrogateescape")
