"""The fine-tuning benchmark: how its tasks are drawn, and how its table compares."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_training_and_test_images_are_others_and_a_tenth_is_wrong(tmp_path: Path) -> None:
    import finetune_tasks as tasks

    def pool(folder: Path) -> tasks.Pool:
        """The red value is the class, the green one the image's number."""
        return {
            name: [Image.new("RGB", (2, 2), (label, i, 0)) for i in range(60)]
            for label, name in enumerate("abc")
        }

    task = tasks.Task(pool, (40, 20, 10), 15, wrong=0.1)
    tasks.write(task, tmp_path, 3, tmp_path / "out")
    found: dict[str, list[tuple[int, int, str]]] = {"train": [], "test": []}
    folders = {"train": "data", "test": "test"}
    for name, rows in found.items():
        for path in sorted((tmp_path / "out" / folders[name]).rglob("*.png")):
            red, green, _ = np.array(Image.open(path))[0, 0].tolist()
            rows.append((red, green, path.parent.name.removeprefix("my ")))
    assert [sum(red == i for red, _, _ in found["train"]) for i in range(3)] == [40, 20, 10]
    val = tmp_path / "out" / "data" / "val"
    held = [len(list((val / f"my {name}").iterdir())) for name in "abc"]
    assert sum(held) == 14
    assert sum("abc"[red] != label for red, _, label in found["train"]) == 7
    assert all("abc"[red] == label for red, _, label in found["test"])
    assert not {row[:2] for row in found["train"]} & {row[:2] for row in found["test"]}
    assert len({row[:2] for row in found["test"]}) == 45


def test_the_table_compares_only_seeds_that_all_have() -> None:
    import finetune_table

    rows = [
        {"task": "digits", "seed": seed, "contender": name, "top1": top1, "cpu": 2.0}
        for name, values in {
            "quick": [0.9, 0.8],
            "timm": [0.7, 0.8],
            "ridge probe": [0.7, 0.5, 0.1],
        }.items()
        for seed, top1 in enumerate(values)
    ]
    rows.append({"task": "turned", "seed": 0, "contender": "timm", "top1": 0.5, "cpu": 2.0})
    *_, digits, _, _ = table = finetune_table.accuracy(rows)
    assert table[0] == "| task | ridge probe | timm | quick |"
    assert table[2] == "| turned | | 50.0 | |"
    assert digits == "| digits | 60.0 ± 14.1 | 75.0 ± 7.1 | 85.0 ± 7.1 |"
    assert table[-2] == "| average rank | 3.0 | 2.0 | 1.0 |"


def test_equal_values_share_a_rank() -> None:
    import finetune_table

    assert finetune_table.ranked([0.5, 0.9, 0.5, 0.1]) == [2.5, 1.0, 2.5, 4.0]


def test_answers_are_weighted_by_their_number() -> None:
    import finetune_table

    row = {"task": "digits", "contender": "quick", "validation_images": 40, "temperature": 0.5}
    row |= {"ece_before": 0.2, "ece_after": 0.1, "top1": 0.8, "prior": finetune_table.PRIOR}
    rows = [
        {**row, "seed": 0, "answered": 0.6, "precision": 0.9},
        {**row, "seed": 1, "answered": 0.2, "precision": 1.0},
        {**row, "seed": 2, "answered": 0.0, "precision": None},
    ]
    *_, digits, mean = finetune_table.calibration(rows)
    assert digits == "| digits | 40 | 0.50 | 20.0 | 10.0 | 27 | 92.5 | 80.0 |"
    assert mean == "| mean | | 0.50 | 20.0 | 10.0 | 27 | 92.5 | 80.0 |"


def test_a_result_of_another_recipe_is_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    import finetune

    rows = [{"contender": "timm"}, {"contender": "quick", "recipe": finetune.fingerprint()}]
    assert finetune.valid(rows) == rows
    monkeypatch.setattr(finetune, "MARGIN", 0.7)
    assert finetune.valid(rows) == rows[:1]


def test_the_page_has_the_tables_of_the_results(tmp_path: Path) -> None:
    import finetune
    import finetune_table

    page = BENCHMARKS.parent / "docs" / "training.md"
    made = tmp_path / "training.md"
    made.write_text(page.read_text("utf-8"), "utf-8")
    rows = finetune.valid(finetune_table.read(BENCHMARKS / "results" / "finetune.jsonl"))
    finetune_table.write(made, rows)
    assert made.read_text("utf-8") == page.read_text("utf-8")


def test_the_quick_benchmark_measures_its_contenders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import finetune

    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "test" / name).mkdir(parents=True)
        for i in range(16):
            pixels = rng.integers(256, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "test" / name / f"{i}.png")
    results = tmp_path / "found.jsonl"
    line = ["finetune.py", str(tmp_path), "--quick", "--results", str(results), "--contenders"]
    monkeypatch.setattr(sys, "argv", [*line, "quick", "head only", "ridge probe"])
    finetune.main()
    rows = [json.loads(text) for text in (tmp_path / "found.quick.jsonl").read_text().splitlines()]
    assert [row["contender"] for row in rows] == ["quick", "head only", "ridge probe"]
    assert all(0 <= row["top1"] <= 1 for row in rows)
    assert rows[0]["steps"] == 2
    assert {"ece_before", "ece_after", "answered", "precision"} <= rows[0].keys()
    assert "| tiny |" in capsys.readouterr().out
    assert not results.exists()
