"""The suite doesn't depend on the user's settings, caches or network."""

import os
import signal
import tempfile

# "float16": whatever would compute in float32 by default does so as on a GPU, see CONTRIBUTING.md.
_DTYPE = os.environ.get("MIXER_MLX_TESTS_DTYPE")
for _name in list(os.environ):
    if _name.startswith(("HF_", "HUGGINGFACE_", "MIXER_MLX_", "TRACKIO_", "WANDB_")):
        del os.environ[_name]
_CACHE = tempfile.TemporaryDirectory(prefix="mixer-mlx-tests-", ignore_cleanup_errors=True)
os.environ["HF_HOME"] = f"{_CACHE.name}/hf"
os.environ["MIXER_MLX_CACHE"] = f"{_CACHE.name}/models"
os.environ["MLX_ENABLE_TF32"] = "0"  # on GPUs that would round float32 to 11 bits
os.environ["NO_COLOR"] = "1"
os.environ["TERMINAL_WIDTH"] = "100"
# A shell's `pytest &` ignores Ctrl-C, and then every process started from here would.
signal.signal(signal.SIGINT, signal.default_int_handler)

from pathlib import Path  # noqa: E402

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402

from mixer_mlx.runtime import backend  # noqa: E402
from mixer_mlx.training import loop  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = Path(__file__).parents[1] / "examples"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--network", action="store_true", help="run the tests that use the network")
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "network" in item.keywords and not config.getoption("--network"):
            item.add_marker(pytest.mark.skip(reason="NOT RUN: needs the network (--network)"))
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="NOT RUN: takes minutes (--slow)"))
        if "gpu" in item.keywords and mx.default_device().type != mx.DeviceType.gpu:
            item.add_marker(pytest.mark.skip(reason="NOT RUN: needs a GPU that MLX can use"))


_default_dtype = backend.default_dtype
if _DTYPE:
    backend.default_dtype = lambda device: getattr(mx, _DTYPE)
    loop.gpu_is_default = lambda: True


@pytest.fixture(autouse=True)
def _own_default_dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of the default dtype itself have the real one."""
    if request.path.name == "test_backend.py":
        monkeypatch.setattr(backend, "default_dtype", _default_dtype)


@pytest.fixture
def odd_name(tmp_path: Path) -> str:
    """The stem of a file's name that isn't UTF-8, or isn't ASCII where disks take only UTF-8."""
    for name in (os.fsdecode(b"caf\xe9 \xff"), "caf\u00e9"):
        try:
            (tmp_path / name).touch()
        except OSError:  # APFS
            continue
        (tmp_path / name).unlink()
        return name
    raise AssertionError


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference tensors; see its README."""
    return GOLDEN


@pytest.fixture(scope="session")
def cat() -> Path:
    """An image of a cat."""
    return EXAMPLES / "cat.png"


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty noisy images, reddish ones in `cat` and bluish ones in `dog`."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("photos")
    for channel, name in ((0, "cat"), (2, "dog")):
        (folder / name).mkdir()
        for i in range(20):
            pixels = rng.integers(0, 200, (36, 32, 3), np.uint8)
            pixels[..., channel] += 55
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
    return folder
