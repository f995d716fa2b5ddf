"""The plot of a run's log is drawn as the log grows."""

from pathlib import Path

import pytest

from mixer_mlx.training.run_log import Log


def test_plotting_each_epoch_reads_the_log_a_bounded_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    def draw(self: Log, path: Path) -> None:
        nonlocal read
        read += len(self.lines)
        self._drawn = len(self.lines)

    monkeypatch.setattr(Log, "draw", draw)
    for epochs in (1000, 2000, 4000):
        log, read = Log(tmp_path / "log.jsonl"), 0
        for epoch in range(epochs):
            log.lines += [{"event": "step"}] * 9 + [{"event": "epoch"}]
            before = read
            log.draw_grown(tmp_path / "curves.png")
            assert epoch >= 20 or read > before  # a short run's plot is always up to date
        assert read < 21.5 * len(log.lines)
