import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

TINY = Path(__file__).parents[1] / "golden" / "jax_square.npz"
FAST = ("--repeat", 1, "-b", "1,2")
RESULT = {
    *("dtype", "batch_size", "repeats", "images_per_second", "seconds", "seconds_q1", "seconds_q3"),
    *("peak_memory", "flops_per_second", "share"),
}


def test_json_of_the_real_command(tmp_path: Path) -> None:
    args = ["benchmark", "-m", TINY, "-b", "2,1", "--repeat", 2, "--dtype", "float32,float16"]
    out, plot = tmp_path / "out.json", tmp_path / "plot.png"
    args += ["--format", "json", "-o", out, "--plot", plot]
    command = [sys.executable, "-m", "mixer_mlx", *map(str, args)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert json.loads(out.read_text()) == found
    assert set(found) == {
        *("benchmark_format", "environment", "model", "variant", "image_size", "parameters"),
        *("flops_per_image", "job", "recipe", "ceilings", "results"),
    }
    assert {"mixer_mlx", "mlx", "platform", "device", "device_name", "date", "cores"} <= set(
        found["environment"]
    )
    assert {"library", "threads"} <= set(found["environment"]["blas"])
    assert (found["job"], found["recipe"]) == ("predict", None)
    assert [(r["dtype"], r["batch_size"]) for r in found["results"]] == [
        ("float32", 2),
        ("float32", 1),
        ("float16", 2),
        ("float16", 1),
    ]
    for result in found["results"]:
        assert set(result) == RESULT
        assert all(value > 0 for key, value in result.items() if key != "dtype")
    with Image.open(plot) as image:
        assert image.format == "PNG"


def test_table_and_csv(mixer) -> None:  # type: ignore[no-untyped-def]
    run = mixer("benchmark", "-m", TINY, "--dtype", "float32", *FAST)
    assert run.code == 0, run.err
    lines = run.out.splitlines()
    for name in ("dtype", "batch", "images/s", "quartiles", "peak MiB", "GFLOP/s", "of ceiling"):
        assert name in lines[0]
    assert [line.split()[:2] for line in lines[1:3]] == [["float32", "1"], ["float32", "2"]]
    assert "Ceiling in float32" in run.out
    rows = list(
        csv.DictReader(io.StringIO(mixer("benchmark", "-m", TINY, *FAST, "--format", "csv").out))
    )
    assert set(rows[0]) == RESULT
    assert [row["batch_size"] for row in rows] == ["1", "2"]


def test_training_steps(mixer) -> None:  # type: ignore[no-untyped-def]
    run = mixer("benchmark", "-m", TINY, *FAST, "--train", "--format", "json")
    assert run.code == 0, run.err
    found = json.loads(run.out)
    assert (found["job"], found["recipe"]) == ("train", "AdamW")
    assert len(found["results"]) == 2
    run = mixer("benchmark", "-m", TINY, *FAST, "--train", "--recipe", "paper-finetune")
    assert "train (paper-finetune)" in run.out


def test_random_weights_need_no_network(mixer, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("MIXER_MLX_MODEL", "mixer_b16_224.sam")
    run = mixer("benchmark", "--variant", "s32", "-b", 1, "--repeat", 1, "--format", "json")
    assert run.code == 0, run.err
    found = json.loads(run.out)
    assert (found["variant"], found["parameters"]) == ("S/32", 19_104_624)
    assert "random" in found["model"]


def test_ratios_to_a_file(mixer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = tmp_path / "other.json"
    assert mixer("benchmark", "-m", TINY, *FAST, "-o", other).code == 0
    values = json.loads(other.read_text())
    values["environment"]["device_name"] = "Abacus"
    values["results"][0]["images_per_second"] = 0.5
    del values["results"][1]
    other.write_text(json.dumps(values))
    args = ("benchmark", "-m", TINY, *FAST, "--compare", other)
    found = json.loads(mixer(*args, "--format", "json").out)
    first, second = found["results"]
    assert first["ratio"] == pytest.approx(first["images_per_second"] / 0.5)
    assert second["ratio"] is None
    assert found["differences"]["environment.device_name"][1] == "Abacus"
    table = mixer(*args).out
    assert table.splitlines()[0].endswith("ratio")
    assert table.splitlines()[1].endswith(" x")
    assert "Abacus there" in table


def test_nothing_is_overwritten_or_measured_in_vain(mixer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    there = tmp_path / "there.json"
    there.write_text("mine")
    for option in ("-o", "--plot"):
        run = mixer("benchmark", "-m", TINY, *FAST, option, there)
        assert run.code == 1
        assert "--force" in run.err
        assert there.read_text() == "mine"
    assert mixer("benchmark", "-m", TINY, *FAST, "-o", there, "--force").code == 0
    assert json.loads(there.read_text())["benchmark_format"] == 1
    run = mixer("benchmark", "-m", TINY, *FAST, "-o", tmp_path / "no" / "x.json")
    assert run.code == 1
    assert "doesn't exist; create it first" in run.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-b", "1,x"), "Expected batch sizes from 1 to"),
        (("-b", "0"), "Expected batch sizes from 1 to"),
        (("-b", "99999999"), "Expected batch sizes from 1 to"),
        (("--dtype", "int4"), "'int4' isn't a list"),
        (("--variant", "B/16"), "either -m or --variant"),
        (("--recipe", "quick"), "--train"),
        (("--repeat", 0), "--repeat"),
    ],
)
def test_wrong_usage(mixer, args: tuple[object, ...], message: str) -> None:  # type: ignore[no-untyped-def]
    run = mixer("benchmark", "-m", TINY, *args)
    assert run.code == 2
    assert message in " ".join(run.err.replace("│", " ").split())


def test_wrong_input(mixer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    run = mixer("benchmark", "-m", TINY, *FAST, "--compare", broken)
    assert run.code == 1
    assert "valid JSON" in run.err
    run = mixer("benchmark", "-m", "no-such-model", *FAST)
    assert run.code == 1
    assert "--variant" in run.err
    run = mixer("benchmark", "--variant", "B/17", *FAST)
    assert run.code == 1
    assert "S/32" in run.err
    run = mixer("benchmark", "-m", TINY, *FAST, "--train", "--recipe", "nope")
    assert run.code == 1
    assert "paper-imagenet" in run.err
