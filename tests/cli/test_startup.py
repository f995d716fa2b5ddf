"""How much a command imports before it answers: times depend on the machine, this doesn't."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"huggingface_hub", "scipy", "starlette", "matplotlib", "tqdm", "torch", "unittest"}

NEEDLESS = (
    "mixer_mlx.training",
    "mixer_mlx.analysis",
    "mixer_mlx.convert.export.formats",
    "mixer_mlx.convert.plan",
    "mixer_mlx.convert.weights",
    "numpy.random",
)
"""What a prediction by a model folder doesn't need."""


def imported(*args: str | Path, code: int = 0) -> list[str]:
    """The modules that a command of its own process imports."""
    command = [sys.executable, "-X", "importtime", "-m", "mixer_mlx", *map(str, args)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == code, run.stderr
    return re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", run.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("args", "modules", "ours"), [(["--help"], 180, 16), (["predict", "--help"], 320, 33)]
)
def test_help(args: list[str], modules: int, ours: int) -> None:
    """0.07 and 0.17 s on two cores; pydantic, which typer imports for options, takes 0.05."""
    found = imported(*args)
    assert 50 < len(found) <= modules
    assert 10 <= sum(name.startswith("mixer_mlx") for name in found) <= ours
    packages = {name.split(".")[0] for name in found}
    assert not packages & (HEAVY | {"mlx", "numpy", "PIL", "safetensors"})


def test_one_prediction(cat: Path) -> None:
    """0.41 s on two cores, of which NumPy, MLX, Pillow and typer take most."""
    found = imported("predict", cat, "-m", "cifar10")
    assert 200 < len(found) <= 540
    assert sum(name.startswith("mixer_mlx") for name in found) <= 96
    assert not {name.split(".")[0] for name in found} & HEAVY
    assert not [name for name in found if name.startswith(NEEDLESS)]


def test_a_missing_image_loads_no_model(tmp_path: Path) -> None:
    """0.29 s on two cores; with a published model it would otherwise be downloaded first."""
    found = imported("predict", tmp_path / "missing.png", code=1)
    assert 200 < len(found) <= 470
    assert not {name.split(".")[0] for name in found} & (HEAVY | {"mlx", "safetensors"})


def test_the_end_searches_no_objects_for_cycles(cat: Path) -> None:
    """Which took 0.07 s of 0.54 on two cores."""
    code = (
        "import atexit, gc; from mixer_mlx.cli.start import main; "
        "atexit.register(lambda: print(gc.get_freeze_count(), len(gc.get_objects()))); main()"
    )
    command = [sys.executable, "-c", code, "predict", cat, "-m", "cifar10", "--format", "json"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    frozen, searched = map(int, run.stdout.splitlines()[-1].split())
    assert frozen > 10_000
    assert searched < 1000
