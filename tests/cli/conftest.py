"""`mixer("predict", ...)` runs the command in this process and gives code, stdout and stderr."""

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from mixer_mlx.cli.main import main


class Run(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _our_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command takes over signals for good, as it has a process of its own."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder of 11 images; `04.png` can't be read."""
    folder = tmp_path / "album"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(11):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "04.png").write_text("This is no image.")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Sixteen noisy images, reddish and bluish."""
    rng = np.random.default_rng(0)
    for channel, name in ((0, "red"), (2, "blue")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 120, (40, 36, 3), np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def mixer(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(*args: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["mixer", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code is None or isinstance(caught.value.code, int)
        return Run(caught.value.code or 0, *capfd.readouterr())

    return run
