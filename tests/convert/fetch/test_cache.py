"""Where converted models are kept."""

from pathlib import Path

import pytest

from mixer_mlx.convert.fetch import cache


@pytest.mark.parametrize("value", [None, ""])
def test_the_default_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    """As docs/cli.md and `mixer cache` name it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MIXER_MLX_CACHE")
    if value is not None:
        monkeypatch.setenv("MIXER_MLX_CACHE", value)
    assert cache.root() == tmp_path / ".cache" / "mixer-mlx"
