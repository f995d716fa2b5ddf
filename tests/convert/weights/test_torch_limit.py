"""The limit of memory for reading a PyTorch file, on a kernel that behaves as macOS's does."""

import importlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

NONE = resource.RLIM_INFINITY
GIB = 2**30


class Kernel:
    """`setrlimit` of RLIMIT_AS: refused below what is mapped, unless it isn't checked at all."""

    def __init__(self, mapped: int, soft: int = NONE, hard: int = NONE) -> None:
        self.mapped, self.limits = mapped, (soft, hard)

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        infinity = limits[0] == NONE
        if not infinity and (limits[0] < self.mapped or limits[0] > limits[1] != NONE):
            raise ValueError("current limit exceeds maximum limit")
        self.limits = limits


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """torch_child on macOS, which has no /proc; PyTorch isn't needed here."""
    for name, content in (("torch", ()), ("safetensors.torch", ("save_file",))):
        module = ModuleType(name)
        for function in content:
            setattr(module, function, None)
        monkeypatch.setitem(sys.modules, name, module)
    found = importlib.import_module("mixer_mlx.convert.weights.torch_child")
    monkeypatch.setattr(Path, "exists", lambda _: False)
    monkeypatch.setattr(sys, "platform", "darwin")
    yield found
    del sys.modules[found.__name__]


@pytest.mark.parametrize("mapped", [3 * GIB, 407 * GIB + 12345, 2**46])
def test_the_limit_lies_above_what_is_mapped(
    child: ModuleType, monkeypatch: pytest.MonkeyPatch, mapped: int
) -> None:
    kernel = Kernel(mapped)
    monkeypatch.setattr(resource, "getrlimit", kernel.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", kernel.setrlimit)
    child._limit_memory(GIB)
    room = kernel.limits[0] - mapped
    assert GIB <= room <= 6 * GIB
    assert kernel.limits[1] == NONE


@pytest.mark.parametrize(
    ("mapped", "soft", "hard"), [(0, NONE, NONE), (2**50, NONE, NONE), (2 * GIB, GIB, GIB)]
)
def test_without_a_usable_limit_nothing_changes(
    child: ModuleType, monkeypatch: pytest.MonkeyPatch, mapped: int, soft: int, hard: int
) -> None:
    """A kernel that checks nothing, one that accepts nothing, and one that is full already."""
    kernel = Kernel(mapped, soft, hard)
    monkeypatch.setattr(resource, "getrlimit", kernel.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", kernel.setrlimit)
    child._limit_memory(GIB)
    assert kernel.limits == (soft, hard)
