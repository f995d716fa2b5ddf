"""`mixer("predict", ...)` runs the command in this process and gives code, stdout and stderr."""

import sys
import warnings
from collections.abc import Callable
from typing import NamedTuple

import pytest

from mixer_mlx.cli.main import main


class Run(NamedTuple):
    code: int
    out: str
    err: str


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
