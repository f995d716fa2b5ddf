"""What may go wrong in a run, as a user meets it."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from mixer_mlx.cli.train import run as work

SMALL = Path(__file__).parents[2] / "golden" / "jax_square.npz"


def arguments(photos: Path, run: Path, *more: object) -> list[object]:
    return ["fine-tune", photos, "-m", SMALL, "-o", run, "-b", 4, "--steps", 2, *more]


def test_images_that_vanish_after_the_split(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_head, run = work.start_head, tmp_path / "run"

    def vanish(*args: object, **options: bool) -> None:
        for i in (0, 1, 2):
            (photos / "red" / f"{i}.png").unlink(missing_ok=True)
        start_head(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(work, "start_head", vanish)
    done = mixer(*arguments(photos, run, "--val-fraction", 0.5))
    assert done.code == 0, done.err
    assert done.err.count("Skipped ") == 3
    assert done.err.count("There is no such file; check the path.") == 3
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    measured = lines[-1]["raw"]["images"]
    assert f"{measured} ({8 - measured} unreadable)" in (run / "report.html").read_text("utf-8")


def test_all_images_vanish(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "start_head", lambda *_, **__: shutil.rmtree(photos))
    done = mixer(*arguments(photos, tmp_path / "run", "-q"))
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("Error: ")
    assert "can't be read" in done.err.splitlines()[-1] or "no readable" in done.err


@pytest.mark.parametrize("more", [(), ("--folds", 3), ("--learning-curve",)])
def test_classes_of_one_image(mixer, photos: Path, tmp_path: Path, more: tuple[object]) -> None:  # type: ignore[no-untyped-def]
    for name, shade in (("one", 30), ("other", 220)):
        (photos / name).mkdir()
        Image.linear_gradient("L").resize((shade, 36)).save(photos / name / "0.png")
    run = tmp_path / "run"
    done = mixer(*arguments(photos, run, "--balance", "loss", *more))
    assert done.code == 0, done.err
    assert "Classes with fewer than 10 training images:" in done.err
    assert (run / "report.html").is_file()


def test_classes_of_one_image_only(mixer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for name in ("one", "other"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), "red").save(tmp_path / "data" / name / "0.png")
    done = mixer(*arguments(tmp_path / "data", tmp_path / "run"))
    assert done.code == 1
    assert "leaves no images for validation; give a class two or more that differ." in done.err


def test_a_model_of_a_run_that_has_none_yet(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = tmp_path / "run"
    assert mixer(*arguments(photos, run, "--no-report", "--no-calibrate")).code == 0
    for name in ("best", "last"):
        shutil.rmtree(run / name)
    early = mixer("predict", photos / "red" / "0.png", "-m", run)
    assert early.code == 1
    assert early.err == (
        f"Error: The run in {run} has no best model yet; wait for its first validation.\n"
    )
