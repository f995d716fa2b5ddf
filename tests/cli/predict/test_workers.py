"""`--workers` decodes in so many threads."""

from pathlib import Path
from typing import Any

import pytest

from mixer_mlx.runtime import threads


def test_workers(mixer, cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(threads, "_workers", None)
    pools = []
    pool = threads.ThreadPoolExecutor

    def noted(count: int, *names: str, **options: Any) -> object:
        pools.append(count)
        return pool(count, *names, **options)

    monkeypatch.setattr(threads, "ThreadPoolExecutor", noted)
    assert mixer("predict", cat, "-m", "cifar10", "--workers", 3).code == 0
    assert mixer("predict", cat, "-m", "cifar10").code == 0
    assert pools == [3, threads.cores()]
