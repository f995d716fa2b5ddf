"""`mixer fine-tune --folds`."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mixer_mlx import checkpoint
from mixer_mlx.data.read import read_split
from mixer_mlx.training.fingerprint import fingerprint
from mixer_mlx.training.folds import Folds

SMALL = Path(__file__).parents[2] / "golden" / "jax_square.npz"


def arguments(photos: Path, run: Path, *more: object) -> list[object]:
    return ["fine-tune", photos, "-m", SMALL, "-o", run, "-b", 4, "--epochs", 2, *more]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "out-of-fold.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_image_is_predicted_by_a_model_that_has_not_seen_it(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path
) -> None:
    for i in (5, 6, 7):
        shutil.copy(photos / "red" / "0.png", photos / "red" / f"{i}.png")
    (photos / "blue" / "7.png").write_text("no image")
    run = tmp_path / "run"
    done = mixer(*arguments(photos, run, "--folds", 3))
    assert done.code == 0, done.err
    assert "Kept 4 near-duplicate images together, in a group: none is in two folds." in done.err

    dataset = read_split(photos)[0]
    fold = np.array(json.loads((run / "split.json").read_text())["part"])
    assert set(fold.tolist()) == {1, 2, 3}
    same = [i for i, path in enumerate(dataset.paths) if path.name in ("0.png", "5.png", "7.png")]
    assert len({fold[i] for i in same if dataset.labels[i]}) == 1
    for number in (1, 2, 3):
        began = json.loads((run / "folds" / str(number) / "run.json").read_text())
        unseen = np.flatnonzero(fold == number)
        assert began["val"] == fingerprint(dataset.take(unseen))
        assert began["train"] == fingerprint(dataset.take(np.flatnonzero(fold != number)))
        assert not (run / "folds" / str(number) / "best").exists()

    found = rows(run)
    broken = str(photos / "blue" / "7.png")
    assert [row["image"] for row in found] == [str(p) for p in dataset.paths if str(p) != broken]
    assert [int(row["fold"]) for row in found] == [fold[int(row["index"])] for row in found]
    right = sum(row["class"] == row["predicted"] for row in found)
    assert re.search(rf"all +15 +{right / 15:.1%} \(", done.out)
    top1 = [float(x) for x in re.findall(r"^[123] .* (\d+\.\d)% \(", done.out, re.M)]
    assert f"{np.mean(top1):.1f}% ± {np.std(top1, ddof=1):.1f}" in done.out
    assert f"{right / 15:.1%}" in (run / "README.md").read_text()
    assert "by a model that hadn&#x27;t seen it" in (run / "report.html").read_text()
    calibration = checkpoint.read_info(run / "best").calibration
    assert calibration is not None
    assert calibration.images == 15
    assert mixer("predict", photos / "red" / "1.png", "-m", run).code == 0
    assert "trained on 16 of these 16 images" in mixer("evaluate", photos, "-m", run).err
    assert "is finished" in mixer(*arguments(photos, run, "--folds", 3, "--resume")).err


def test_an_interrupted_fold_is_resumed(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert mixer(*arguments(photos, whole, "--folds", 2, "--no-report")).code == 0
    args = arguments(photos, run, "--folds", 2, "--no-report")
    judge = Folds.judge

    def interrupted(self: Folds, number: int, *fold: object) -> None:
        if number == 2:
            raise KeyboardInterrupt
        judge(self, number, *fold)  # type: ignore[arg-type]

    with monkeypatch.context() as while_:
        while_.setattr(Folds, "judge", interrupted)
        assert mixer(*args).code == 130
    log = run / "folds" / "1" / "log.jsonl"
    before = log.stat().st_mtime_ns
    other = mixer(*arguments(photos, run, "--folds", 3, "--resume"))
    assert (other.code, "started with folds 2, not 3" in other.err) == (1, True)
    plain = mixer(*arguments(photos, run, "--resume"))
    assert (plain.code, "started with folds 2" in plain.err) == (1, True), "and nothing is lost"
    resumed = mixer(*args, "--resume")
    assert resumed.code == 0, resumed.err
    assert "Fold 1" not in resumed.err
    assert log.stat().st_mtime_ns == before
    assert (run / "out-of-fold.csv").read_text() == (whole / "out-of-fold.csv").read_text()
    ours, theirs = (load_file(one / "best" / "model.safetensors") for one in (run, whole))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--folds", 1), "at least 2"),
        (("--folds", 17), "Expected 2 or more --folds, and no more than images that differ"),
        (("--folds", 3, "--val-fraction", 0.2), "omit --val-split and --val-fraction"),
        (("--folds", 3, "--plan"), "omit --folds"),
    ],
)
def test_folds_that_cannot_be(mixer, photos: Path, tmp_path: Path, more, sentence: str) -> None:  # type: ignore[no-untyped-def]
    run = mixer(*arguments(photos, tmp_path / "run", *more))
    assert run.code in (1, 2)
    assert sentence in " ".join(run.err.split())
    assert not (tmp_path / "run").exists()
