"""`mixer report`, and what `--learning-curve` adds to it."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from mixer_mlx.runtime.files import locked_folder

SMALL = Path(__file__).parents[1] / "golden" / "jax_square.npz"


def arguments(photos: Path, run: Path, *more: object) -> list[object]:
    return ["fine-tune", photos, "-m", SMALL, "-o", run, "-b", 4, "--steps", 3, *more]


def facts(page: str) -> dict[str, str]:
    return dict(re.findall("<dt>([^<]*)</dt><dd>([^<]*)</dd>", page))


def test_the_report_is_written_anew(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = tmp_path / "run"
    assert mixer(*arguments(photos, run, "--val-fraction", 0.5)).code == 0
    first = (run / "report.html").read_text("utf-8")
    (run / "report.html").unlink()
    again = mixer("report", run)
    assert (again.code, again.out) == (0, ""), again.err
    assert (run / "report.html").read_text("utf-8") == first
    assert mixer("report", run).code == 0, "it replaces its own page"
    with locked_folder(run) as ours:
        assert ours
        busy = mixer("report", run)
    assert "Another command is writing to" in busy.err

    page = tmp_path / "page.html"
    assert mixer("report", run, "-o", page, "-q").err == ""
    assert facts(page.read_text("utf-8")) == facts(first)
    assert "--force" in mixer("report", run, "-o", page).err
    assert mixer("report", run, "-o", page, "--force").code == 0

    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    size = json.loads((run / "run.json").read_text())["recipe"]["batch_size"]
    assert facts(first)["steps"] == f"3 of {size} images"
    seconds = sum(size / line["images_per_second"] for line in steps)
    assert facts(first)["images per second"] == f"{3 * size / seconds:,.1f}"
    assert "<script" not in first
    for heading in ("Labels in doubt", "Worst mistakes", "Cost"):
        assert f"<h2>{heading}</h2>" in first


def test_the_report_of_all_folds_is_written_anew(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = tmp_path / "run"
    assert mixer(*arguments(photos, run, "--folds", 2)).code == 0
    first = (run / "report.html").read_text("utf-8")
    assert mixer("report", run).code == 0
    assert (run / "report.html").read_text("utf-8") == first
    assert facts(first)["images"] == "16"


def test_images_that_were_moved_or_changed(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run, moved = tmp_path / "run", tmp_path / "moved"
    assert mixer(*arguments(photos, run, "--no-report")).code == 0
    photos.rename(moved)
    missing = mixer("report", run)
    assert missing.code == 1
    assert "doesn't exist; check the path. If the images were moved, name them with --data." in (
        missing.err
    )
    assert mixer("report", run, "--data", moved).code == 0
    assert (run / "report.html").is_file()
    Image.new("RGB", (40, 36)).save(moved / "red" / "0.png")
    assert "aren't those that the run in" in mixer("report", run, "--data", moved).err
    (moved / "red" / "0.png").unlink()
    assert "it had 16, and now there are 15; restore them" in (
        mixer("report", run, "--data", moved).err
    )
    began = json.loads((run / "run.json").read_text())
    del began["data"]
    (run / "run.json").write_text(json.dumps(began))
    assert "doesn't say where its images are; name them with --data" in mixer("report", run).err


@pytest.mark.parametrize("missing", ["run.json", "best"])
def test_a_folder_that_is_no_complete_run(
    mixer, photos: Path, tmp_path: Path, missing: str
) -> None:  # type: ignore[no-untyped-def]
    run = tmp_path / "run"
    assert mixer(*arguments(photos, run, "--no-report", "--no-calibrate")).code == 0
    path = run / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    failed = mixer("report", run)
    assert failed.code == 1
    assert ("isn't the folder of a run" if missing == "run.json" else "no best model yet") in (
        failed.err
    )


def test_a_learning_curve(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Its last point is `mixer few-shot`'s on the same split."""
    run = tmp_path / "run"
    done = mixer(*arguments(photos, run, "--learning-curve", "--val-fraction", 0.5))
    assert done.code == 0, done.err
    rows = re.findall(r"^(25%|50%|all) +(\d+) +(\d+\.\d)% \(", done.out, re.M)
    assert [(name, number) for name, number, _ in rows] == [
        ("25%", "2"),
        ("50%", "4"),
        ("all", "8"),
    ]
    shot = mixer(
        *("few-shot", photos, "-m", SMALL, "--val-fraction", 0.5, "--shots", "all"),
        *("--format", "json"),
    )
    record = json.loads(shot.out)
    assert f"{record['accuracy']:.1%}" == f"{rows[-1][2]}%"
    assert record["accuracy_low"] < record["accuracy"] < record["accuracy_high"] or (
        record["accuracy"] in (0, 1)
    )
    page = (run / "report.html").read_text("utf-8")
    assert "<h2>More photos?</h2>" in page
    assert "The second half of the images brought" in done.out
    for command in (("--folds", 3), ("--plan",)):
        refused = mixer(*arguments(photos, tmp_path / "other", "--learning-curve", *command))
        assert refused.code == 2
