"""What the bar of predict and check says."""

import pytest

from mixer_mlx.cli.terminal.progress import _text


@pytest.mark.parametrize(
    ("done", "failed", "total", "seconds", "text"),
    [
        (0, 0, None, 0.0, "0 images"),
        (5, 0, 10, 60.0, "5 of 10 images"),
        (5000, 2, 12_000, 1.0, "5,000 of 12,000 images, 2 failed"),
        (5000, 0, None, 4.0, "5,000 images  1,250 images/s"),
    ],
)
def test_text(done: int, failed: int, total: int | None, seconds: float, text: str) -> None:
    assert _text(done, failed, total, seconds) == text
