"""How many kernels a Mac's GPU gets, counted by benchmarks/launches.py: a stray copy fails here."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

FORWARD = {
    "B/16 1 float16": 136,
    "B/16 32 float16": 123,
    "L/16 1 float32": 253,
    "cifar10 1 float32": 93,
}
STEP = {
    "B/16 1 float32": 634,
    "B/16 32 float32": 639,
    "B/16 32 float16": 686,
    "cifar10 128 float32": 473,
}


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`count("B/16 1 float16", training=False)`, the total."""
    # Only here: benchmarks/training.py would hide tests/training/.
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    launches = importlib.import_module("launches")

    def total(case: str, *, training: bool) -> int:
        name, batch, dtype = case.split()
        return int(launches.count(name, int(batch), dtype, training=training).total())

    return total


@pytest.mark.parametrize(("case", "expected"), FORWARD.items())
def test_a_forward_pass(count: Callable[..., int], case: str, expected: int) -> None:
    assert count(case, training=False) == expected


@pytest.mark.parametrize(("case", "expected"), STEP.items())
def test_a_training_step(count: Callable[..., int], case: str, expected: int) -> None:
    assert count(case, training=True) == expected
