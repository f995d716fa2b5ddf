"""`--find-lr` and `--report-to` of `mixer train` and `mixer fine-tune`."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from mixer_mlx.errors import TrainingError
from mixer_mlx.training import trackers

SMALL = Path(__file__).parents[2] / "golden" / "jax_square.npz"


def test_find_lr(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plot = tmp_path / "lr.png"
    args = ("fine-tune", photos, "-m", SMALL, "-b", 2, "--find-lr", plot)
    run = mixer(*args, "-o", tmp_path / "run")
    assert run.code == 0, run.err
    record = json.loads((tmp_path / "lr.json").read_text())
    assert f"{record['suggested_lr']:.2e}" in run.out
    assert f"{record['steepest_at']:.2e}" in run.out
    assert "nothing was trained" in run.err
    assert ("too little" in run.err) == (record["fall"] < 0.005)
    with Image.open(plot) as image:
        assert image.format == "PNG"
    assert not (tmp_path / "run").exists()
    before = plot.read_bytes()
    again = mixer(*args)
    assert again.code == 1
    assert "--force" in again.err
    plot.unlink()
    assert "lr.json already exists" in mixer(*args).err
    assert mixer(*args, "--force", "-q") == (0, run.out, "")
    assert plot.read_bytes() == before
    assert "lr.png" in mixer(*args[:-1], tmp_path / "lr.jpg").err
    assert "create it first" in mixer(*args[:-1], tmp_path / "no" / "lr.png").err


def test_shuffled_images_in_training_evaluation_and_resume(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    for split, numbers in (("train", range(5)), ("val", range(5, 8))):
        for name in ("red", "blue"):
            (data / split / name).mkdir(parents=True)
            for number in numbers:
                (photos / name / f"{number}.png").rename(data / split / name / f"{number}.png")
    plain = ("--no-report", "--no-calibrate", "-q")
    args = ("train", data, "--like", SMALL, "-o", out, "--steps", 3, "-b", 4, *plain)
    assert mixer(*args, "--shuffle", "pixels").code == 0
    assert json.loads((out / "run.json").read_text())["recipe"]["shuffle"] == "pixels"
    losses = _losses(out / "log.jsonl")
    evaluated = ("evaluate", data, "-m", out, "--format", "json", "-q", "--dtype", "float32")
    assert json.loads(mixer(*evaluated).out)["loss"] == pytest.approx(min(losses), abs=1e-5)
    config = json.loads((out / "best" / "config.json").read_text())
    assert config.pop("shuffle") == "pixels"
    (out / "best" / "config.json").write_text(json.dumps(config))
    assert json.loads(mixer(*evaluated).out)["loss"] != pytest.approx(min(losses), abs=1e-4)
    refused = mixer(*args, "--shuffle", "patches", "--resume")
    assert refused.code == 1
    assert "started with shuffle pixels, not patches" in refused.err


def _losses(log: Path) -> list[float]:
    """Of each validation."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["raw"]["loss"] for line in lines if line["event"] == "epoch"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_library_is_a_sentence_before_anything_starts(
    mixer,  # type: ignore[no-untyped-def]
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    module = {"tensorboard": "tensorboardX"}.get(name, name)
    for known in [known for known in sys.modules if known.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, module, None)
    run = mixer("fine-tune", photos, "-m", SMALL, "-o", tmp_path / "run", "--report-to", name)
    assert run.code == 1
    wanted = "trackio" if name == "trackio" else f"'mixer-mlx[{name}]'"
    assert f"pip install {wanted}" in run.err
    assert not (tmp_path / "run").exists()
    assert mixer("fine-tune", photos, "--report-to", "paper").code == 2


def test_a_run_s_folder_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    for known in [known for known in sys.modules if known.split(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    try:
        with pytest.raises(TrainingError, match="pip install"):
            trackers.check(["wandb"])
    finally:
        sys.modules.pop("wandb", None)


def test_report_to_tensorboard(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("tensorboardX", reason="NOT RUN: needs the extra tensorboard")
    run = tmp_path / "run"
    args = ("fine-tune", photos, "-m", SMALL, "-o", run, "-b", 4, "--steps", 4)
    told = mixer(*args, "--report-to", "tensorboard", "--report-to", "tensorboard")
    assert told.code == 0, told.err
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert mixer(*args, "--force").code == 0  # its files are the run's, and go with it
    assert not (run / "tensorboard").exists()
