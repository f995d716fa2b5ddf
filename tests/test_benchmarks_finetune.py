"""The fine-tuning benchmark: how its tasks are drawn, and how its table compares."""

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
    for name, rows in found.items():
        for path in sorted((tmp_path / "out" / name).rglob("*.png")):
            red, green, _ = np.array(Image.open(path))[0, 0].tolist()
            rows.append((red, green, path.parent.name))
    assert [sum(red == i for red, _, _ in found["train"]) for i in range(3)] == [40, 20, 10]
    assert sum("abc"[red] != label for red, _, label in found["train"]) == 7
    assert all("abc"[red] == label for red, _, label in found["test"])
    assert not {row[:2] for row in found["train"]} & {row[:2] for row in found["test"]}
    assert len({row[:2] for row in found["test"]}) == 45


def test_the_table_compares_only_seeds_that_all_have() -> None:
    import finetune

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
    *_, digits, _, _ = table = finetune.table(rows)
    assert table[2] == "| turned | | 50.0 | |"
    assert digits == "| digits | 85.0 ± 7.1 | 75.0 ± 7.1 | 60.0 ± 14.1 |"
    assert table[-2] == "| average rank | 1.0 | 2.0 | 3.0 |"


def test_equal_values_share_a_rank() -> None:
    import finetune

    assert finetune.ranked([0.5, 0.9, 0.5, 0.1]) == [2.5, 1.0, 2.5, 4.0]
