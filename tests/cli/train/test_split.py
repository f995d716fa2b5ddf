"""The validation images that `mixer fine-tune` draws itself."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mixer_mlx.data.dataset import held_out
from mixer_mlx.data.read import read_split

SMALL = Path(__file__).parents[2] / "golden" / "jax_square.npz"


def arguments(photos: Path, run: Path, *more: object) -> list[object]:
    plain = ("--no-report", "--no-calibrate")
    return ["fine-tune", photos, "-m", SMALL, "-o", run, "-b", 4, *plain, *more]


def parts(run: Path) -> list[int]:
    part = json.loads((run / "split.json").read_text())["part"]
    assert isinstance(part, list)
    return part


def trained_on(run: Path) -> object:
    return json.loads((run / "run.json").read_text())["train"]


def test_copies_stay_on_one_side_and_are_reported(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for i in range(2, 8):
        shutil.copy(photos / "red" / f"{i % 2}.png", photos / "red" / f"{i}.png")
    run = tmp_path / "run"
    done = mixer(*arguments(photos, run, "--steps", 2, "--val-fraction", 0.5))
    assert done.code == 0, done.err
    assert "Kept 8 near-duplicate images together, in 2 groups: none is on both sides" in done.err
    red = parts(run)[8:]
    assert red in ([0, 1] * 4, [1, 0] * 4)
    warned = mixer("evaluate", photos, "-m", run)
    assert f"was trained on {parts(run).count(0)} of these 16 images" in warned.err


def test_a_resumed_run_has_its_split(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Even one that would be drawn otherwise today."""
    run = tmp_path / "run"
    args = arguments(photos, run, "--epochs", 1)
    assert mixer(*args).code == 0
    was, part = trained_on(run), parts(run)
    for name in ("README.md", "best", "last"):  # as if it had been interrupted
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copy(photos / "red" / "0.png", photos / "red" / "0.png.new")
    assert mixer(*args, "--resume").code == 0
    assert (trained_on(run), parts(run)) == (was, part)
    shutil.copy(photos / "red" / "0.png", photos / "red" / "8.png")
    changed = mixer(*args, "--resume")
    assert changed.code == 1
    assert "it had 16, and now there are 17; restore them, or start a new run" in changed.err


def test_a_run_without_a_stored_split_resumes_with_the_old_one(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(4):
        shutil.copy(photos / "red" / f"{i}.png", photos / "red" / f"{i + 4}.png")
    dataset = read_split(photos)[0]
    old = held_out(dataset, 0.5, 0)
    with monkeypatch.context() as before:
        before.setattr(
            "mixer_mlx.data.near.held_out_together", lambda *_: np.array(old), raising=True
        )
        run = tmp_path / "run"
        args = arguments(photos, run, "--epochs", 1, "--val-fraction", 0.5)
        assert mixer(*args).code == 0
    (run / "split.json").unlink()
    (run / "README.md").unlink()
    record = json.loads((run / "run.json").read_text())  # as older versions wrote it
    del record["recipe"]["lora_rank"], record["recipe"]["lora_scale"], record["folds"]
    (run / "run.json").write_text(json.dumps(record))
    resumed = mixer(*args, "--resume")
    assert resumed.code == 0, resumed.err
    assert "Kept" not in resumed.err
    (run / "split.json").write_text('{"part": [1, "a"]}')
    damaged = mixer(*args, "--resume")
    assert damaged.code == 1
    assert "split.json is damaged" in damaged.err
