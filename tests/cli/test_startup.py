"""How much a command imports before it answers: times depend on the machine, this doesn't."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"huggingface_hub", "scipy", "starlette", "matplotlib", "tqdm", "torch", "unittest"}


def imported(*args: str | Path) -> list[str]:
    """The modules that a command of its own process imports."""
    command = [sys.executable, "-X", "importtime", "-m", "mixer_mlx", *map(str, args)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", run.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("args", "modules", "ours"), [(["--help"], 260, 60), (["predict", "--help"], 360, 80)]
)
def test_help(args: list[str], modules: int, ours: int) -> None:
    """0.18 s on two cores, of which Python itself takes 0.02 and typer most of the rest."""
    found = imported(*args)
    assert 50 < len(found) <= modules
    assert sum(name.startswith("mixer_mlx") for name in found) <= ours
    packages = {name.split(".")[0] for name in found}
    assert not packages & (HEAVY | {"mlx", "numpy", "PIL", "safetensors"})


def test_one_prediction(cat: Path) -> None:
    """0.42 s on two cores, of which NumPy, MLX and Pillow take half."""
    found = imported("predict", cat, "-m", "cifar10")
    assert 200 < len(found) <= 620
    assert sum(name.startswith("mixer_mlx") for name in found) <= 130
    assert not {name.split(".")[0] for name in found} & HEAVY
    assert not [name for name in found if re.match(r"mixer_mlx\.(training|analysis)\b", name)]
