"""`mixer train` and `mixer fine-tune`, by the real command where the process matters."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from mixer_mlx import checkpoint, load
from mixer_mlx.cli.train.run import _print_plan
from mixer_mlx.runtime.files import locked_folder
from mixer_mlx.runtime.tuning import TRAINING_MEMORY_FRACTION
from mixer_mlx.training.prepare import Estimate
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.recipes import RECIPES

SMALL = Path(__file__).parents[2] / "golden" / "jax_square.npz"


def command(photos: Path, run: Path, *more: object) -> list[str]:
    args = ["fine-tune", photos, "-m", SMALL, "-o", run, "-b", 4, *more]
    return [sys.executable, "-m", "mixer_mlx", *map(str, args)]


def weights(run: Path, name: str = "last") -> dict[str, np.ndarray]:
    return load_file(run / name / "model.safetensors")


def test_a_run_from_folder_to_model(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = tmp_path / "run"
    done = mixer("fine-tune", photos, "-m", "cifar10", "-o", run, "--steps", 12, "-b", 6)
    assert done.code == 0, done.err
    assert sorted(os.listdir(run)) == [
        "README.md",
        "best",
        "curves.png",
        "last",
        "log.jsonl",
        "report.html",
        "run.json",
        "split.json",
        "state",
    ]
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert steps[-1]["loss"] < 0.95 * steps[0]["loss"]
    trained = checkpoint.read_info(run / "best")
    assert trained.labels == ("blue", "red")
    assert trained.source["recipe"] == "quick"
    assert trained.source["fine_tuned_from"]
    with Image.open(run / "curves.png") as image:
        assert image.size[0] > 400
    assert "`red`: 6" in (run / "README.md").read_text()
    shown = mixer("predict", photos / "red" / "0.png", "-m", run, "--format", "json", "-k", 1)
    assert json.loads(shown.out)["predictions"][0]["label"] == "red"
    evaluated = mixer("evaluate", photos, "-m", run, "--format", "json")
    assert json.loads(evaluated.out)["top1"] == 1.0
    assert mixer("export", run, tmp_path / "out.npz", "--format", "jax").code == 0
    assert mixer("resize", run, tmp_path / "large", "--image-size", 64).code == 0
    again = mixer("fine-tune", photos, "-m", "cifar10", "-o", run, "--steps", 12, "-b", 6)
    assert again.code == 1
    assert "--resume" in again.err
    resumed = mixer(
        "fine-tune", photos, "-m", "cifar10", "-o", run, "--steps", 12, "-b", 6, "--resume"
    )
    assert resumed.code == 0
    assert "finished" in resumed.err


@pytest.mark.parametrize("lost", [["report.html"], ["last", "README.md", "report.html"]])
def test_a_run_that_was_killed_after_its_last_step(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path, lost: list[str]
) -> None:
    run = tmp_path / "run"
    args = ["fine-tune", photos, "-m", SMALL, "-o", run, "--steps", 4, "-b", 4]
    assert mixer(*args).code == 0
    before, log = weights(run), (run / "log.jsonl").read_text()
    for name in lost:
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    resumed = mixer(*args, "--resume")
    assert resumed.code == 0, resumed.err
    assert "Wrote" in resumed.err
    assert all((run / name).exists() for name in lost)
    assert all(np.array_equal(w, before[name]) for name, w in weights(run).items())
    assert (run / "log.jsonl").read_text() == log


def test_resume_names_the_option_that_differs(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    args = ["fine-tune", photos, "-m", SMALL, "-o", tmp_path / "run", "-b", 4, "--epochs"]
    assert mixer(*args, 1).code == 0
    resumed = mixer(*args, 2, "--resume")
    assert resumed.code == 1
    assert "started with epochs 1, not 2" in resumed.err


def test_a_class_whose_name_is_not_utf8(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    name = os.fsdecode(b"caf\xe9")
    try:
        (photos / "red").rename(photos / name)
    except OSError:
        pytest.skip("NOT RUN: this file system takes text only")
    run = tmp_path / "run"
    args = ["fine-tune", photos, "-m", SMALL, "-b", 4, "--steps", 1, "-o"]
    refused = mixer(*args, tmp_path / name)
    assert "Expected a name in UTF-8 for the run" in refused.err
    done = mixer(*args, run)
    assert done.code == 0, done.err
    assert "- `caf\\udce9`: " in (run / "README.md").read_text("utf-8")
    assert (run / "report.html").is_file()
    assert checkpoint.read_info(run / "best").labels == ("blue", name)


def test_the_head_alone(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    options = ["--steps", 2, "-b", 4, "--freeze-backbone"]
    run = mixer("fine-tune", photos, "-m", "cifar10", "-o", tmp_path / "run", *options)
    assert run.code == 0, run.err
    before = load("cifar10", dtype="float32").model
    after = weights(tmp_path / "run")
    assert np.array_equal(after["stem.weight"], np.array(before.stem.weight))
    assert np.array_equal(after["norm.weight"], np.array(before.norm.weight))
    assert after["head.weight"].any()


@pytest.mark.parametrize(
    ("options", "kills"),
    [
        ((), 1),
        (("--grad-accum", "2"), 1),
        (("--freeze-backbone", "--unfreeze-last", "1"), 1),
        pytest.param((), 10, marks=pytest.mark.slow),
    ],
    ids=["plain", "accumulation", "frozen", "many"],
)
def test_a_killed_run_goes_on_bit_for_bit(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path, options: tuple[str, ...], kills: int
) -> None:
    """`quick` has an average of the weights, so that is in all of them."""
    seed = random.randrange(2**32)  # noqa: S311
    print(f"seed {seed}")
    rng = random.Random(seed)  # noqa: S311
    more = ("--steps", "16", "--save-every", "2", "--no-report", "-q", *options)
    assert mixer(*command(photos, tmp_path / "whole", *more)[3:]).code == 0
    expected = weights(tmp_path / "whole")
    for _ in range(kills):
        run = tmp_path / "killed"
        shutil.rmtree(run, ignore_errors=True)
        arguments = command(photos, run, *more)[3:]
        with subprocess.Popen([sys.executable, "-c", WAITS, *arguments], stdin=-1) as child:
            target = rng.randrange(2, 12)
            while child.poll() is None and steps_saved(run) < target:
                time.sleep(0.002)
            child.kill()
        assert child.returncode == -signal.SIGKILL
        assert 0 < steps_saved(run) < 16
        assert mixer(*arguments, "--resume").code == 0
        found = weights(run)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert np.array_equal(found[name], value), name
        logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in logged if line["event"] == "step"]
        assert steps == list(range(1, 17))


WAITS = """
import sys
from mixer_mlx.training.state import State
from mixer_mlx.cli.main import main
real = State.save
def save(self, folder):
    real(self, folder)
    if self.progress.step >= 12:
        sys.stdin.read()  # never over before the kill
State.save = save
main()
"""


def steps_saved(run: Path) -> int:
    try:
        return int(json.loads((run / "state" / "state.json").read_text())["progress"]["step"])
    except (OSError, ValueError):
        return 0


def test_ctrl_c_saves_and_says_how_to_go_on(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = subprocess.Popen(
        command(photos, run, "--steps", "5000"), stderr=subprocess.PIPE, text=True
    )
    while steps_saved(run) < 3:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "--resume" in said
    assert "Traceback" not in said
    assert (run / "best" / "model.safetensors").exists()


def test_images_that_changed_since(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    args = ("fine-tune", photos, "-m", "cifar10", "-o", tmp_path / "run", "--steps", 2, "-b", 4)
    assert mixer(*args).code == 0
    Image.new("RGB", (40, 40)).save(photos / "red" / "new.png")
    run = mixer(*args, "--resume")
    assert run.code == 1
    assert "images changed since the run" in run.err


def test_bad_images_are_named_or_stop_the_run(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for i in range(4):
        (photos / "red" / f"bad{i}.png").write_text("no image")
    args = ("fine-tune", photos, "-m", "cifar10", "--steps", 4, "-b", 4)
    run = mixer(*args, "-o", tmp_path / "run")
    assert run.code == 0
    assert "bad" in run.err
    strict = mixer(*args, "-o", tmp_path / "other", "--strict")
    assert strict.code == 1
    assert "can't be read" in strict.err


def test_a_loss_that_explodes_is_a_sentence(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "wild.toml").write_text('optimizer = "sgd"\nclip_norm = false\nwarmup = 0\n')
    options = ["--config", tmp_path / "wild.toml", "--lr", 999, "--steps", 60, "-b", 4]
    run = mixer("fine-tune", photos, "-m", "cifar10", "-o", tmp_path / "run", *options)
    assert run.code == 1
    assert "wasn't finite in step" in run.err


def test_from_nothing(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    options = ["--recipe", "cifar", "--steps", 1, "-b", 4, "--image-size", 32, "--no-report"]
    run = mixer("train", photos, "--variant", "S/16", "-o", tmp_path / "run", *options)
    assert run.code == 0, run.err
    assert checkpoint.read_info(tmp_path / "run" / "last").config.hidden_dim == 512
    assert mixer("train", photos, "-o", tmp_path / "other").code == 2


@pytest.mark.parametrize("name", RECIPES)
def test_shown_recipes_are_toml_that_makes_them(mixer, name: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    shown = mixer("fine-tune", tmp_path, "--show-recipe", "--recipe", name).out
    assert Recipe.from_dict(tomllib.loads(shown)) == RECIPES[name].recipe
    assert "Source" in shown


def test_plan_shows_days(capsys: pytest.CaptureFixture[str]) -> None:
    _print_plan(Estimate(10, 2.0, 5 * 86_400 + 3600.4, 2**40))
    out = capsys.readouterr().out
    assert "time               5 days, 1:00:00\n" in out
    assert f"over {TRAINING_MEMORY_FRACTION:.0%} of the memory" in out


def test_plan_measures(mixer, photos: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("fine-tune", photos, "-m", "cifar10", "--plan", "-b", 4)
    assert run.code == 0, run.err
    assert "peak memory" in run.out
    assert not list(photos.parent.glob("run*"))


def test_what_a_kill_during_saving_left_is_no_obstacle(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    left = run / ".state.0123456789ab"
    left.mkdir(parents=True)
    (left / "arrays.safetensors").write_bytes(b"half")
    (run / "run.json").write_text("{}")
    options = ("fine-tune", photos, "-m", SMALL, "-o", run, "--steps", 1, "-b", 4, "--no-report")
    assert "--force" in mixer(*options).err
    assert mixer(*options, "--force").code == 0
    assert not left.exists()
    (run / ".notes").write_text("mine")
    refused = mixer(*options, "--force")
    assert refused.code == 1
    assert ".notes" in refused.err


def test_a_batch_beyond_the_memory_is_computed_in_parts(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixer_mlx.runtime.backend.memory_bytes", lambda: 1.0)
    run = tmp_path / "run"
    options = ("fine-tune", photos, "-m", SMALL, "-o", run, "--steps", 1, "-b", 4, "--no-report")
    assert "in 3 parts" in mixer(*options).err  # a quarter of 12 images is a batch
    assert json.loads((run / "run.json").read_text())["recipe"]["accumulation"] == 3
    chosen = mixer(*options, "--force", "--grad-accum", 2)
    assert "parts" not in chosen.err


def test_steps_that_overflow_are_logged(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixer_mlx.training.step.FIRST_LOSS_SCALE", 2.0**60)
    run = tmp_path / "run"
    done = mixer(
        *("fine-tune", photos, "-m", SMALL, "-o", run, "--steps", 2, "-b", 4, "--no-report"),
        *("--dtype", "float16"),
    )
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    assert [(step["gradient_norm"], step["skipped"]) for step in steps] == [(None, True)] * 2


@pytest.mark.parametrize("fraction", [(), ("--val-fraction", 0.5)])
def test_evaluating_on_what_a_run_was_trained_on_is_said(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fraction: tuple[object]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("-m", SMALL, "--steps", 1, "-b", 4, "--no-report", *fraction)
    first = mixer("fine-tune", photos, *options)
    assert f"The run goes to runs/{photos.name}-1 (-o).\n" in first.err
    run = Path("runs", f"{photos.name}-1")
    trained = json.loads((run / "run.json").read_text())["train"]["images"]
    total = sum(1 for _ in photos.rglob("*.png"))
    seen = mixer("evaluate", photos, "-m", run)
    assert seen.err.startswith(f"Warning: {run} was trained on {trained} of these {total} images;")
    assert mixer("fine-tune", photos, *options).err.count(f"runs/{photos.name}-2") > 0
    other = tmp_path / "other"
    for path in list(photos.rglob("*.png"))[:4]:
        for name in ("cat", "dog"):
            (other / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, other / name / f"another-{path.name}")
    assert "was trained on" not in mixer("evaluate", other, "-m", run).err


@pytest.mark.parametrize("more", [(), ("--force",), ("--resume",)])
def test_a_run_that_another_command_writes_is_left_alone(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    args = ("fine-tune", photos, "-m", SMALL, "-o", run, "--steps", 1, "-b", 4)
    assert mixer(*args).code == 0
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with locked_folder(run):
        refused = mixer(*args, *more)
    assert (refused.code, refused.err.splitlines()[-1]) == (
        1,
        f"Error: Another command is writing to {run}; wait for it, or choose another name.",
    )
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_other_files_in_a_run_s_models_are_kept(mixer, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = tmp_path / "run"
    args = ("fine-tune", photos, "-m", SMALL, "-o", run, "--steps", 1, "-b", 4)
    assert mixer(*args).code == 0
    expected, other = weights(run), run / "last" / "notes.txt"
    for name in ("README.md", "report.html", "last/model.safetensors"):  # as if it had been killed
        (run / name).unlink()
    other.write_text("mine")
    assert mixer(*args, "--resume").code == 0
    np.testing.assert_equal(weights(run), expected)
    assert sorted(os.listdir(run / "last")) == ["config.json", "model.safetensors", "notes.txt"]
    refused = mixer(*args, "--force")
    assert refused.code == 1
    assert "contains last/notes.txt, which isn't part of a run" in refused.err
    assert other.read_text() == "mine"


def test_a_link_in_the_place_of_a_run_s_log_is_not_followed(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path
) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    (run / "run.json").write_text("{}")
    (run / "log.jsonl").symlink_to(outside)
    args = ("fine-tune", photos, "-m", SMALL, "-o", run, "--steps", 1, "-b", 4, "--force")
    assert mixer(*args).code == 0
    assert not outside.exists()
