"""On Linux, a fast BLAS and malloc under MLX's CPU.

MLX's wheel for Linux includes the reference BLAS: on two cores of an AMD EPYC a float32 product of
1536 x 1536 matrices takes 20 (busy) to 40 times as long as with OpenBLAS. The package
scipy-openblas32 (extra `cpu`) brings an OpenBLAS whose functions have other names, so `prepare`
writes their addresses into the pointers by which libmlx.so calls its BLAS: its jump slots.

    MIXER_MLX_OPENBLAS=0    keeps the BLAS of MLX's wheel
    MIXER_MLX_MALLOC=0      keeps malloc's defaults
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from . import elf

_LIBMLX = "libmlx.so"
_PRODUCTS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")  # all of BLAS that MLX calls
_MALLOPT = {  # glibc's malloc.h: parameter number, bytes
    -3: 32 << 20,  # M_MMAP_THRESHOLD; its maximum
    -1: 512 << 20,  # M_TRIM_THRESHOLD
    -2: 256 << 20,  # M_TOP_PAD: also for arrays above the first threshold
}

OFF = "switched off by MIXER_MLX_OPENBLAS=0"
MISSING = "scipy-openblas32 isn't installed"
UNKNOWN_MLX = "the calls of this MLX to its BLAS weren't found"


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did.

    `openblas` is the library that computes MLX's matrix products on the CPU, `core` the processor
    that its kernels are for, `threads` its number of threads; for a preloaded library other than
    OpenBLAS, only its path is known. If MLX keeps its own BLAS, all four are None and `reason` is
    why. `malloc`: whether glibc's malloc was tuned.
    """

    openblas: str | None = None
    core: str | None = None
    threads: int | None = None
    version: str | None = None
    reason: str | None = None
    malloc: bool = False


@functools.cache
def prepare() -> Prepared:
    """On Linux, at the first call, give MLX's CPU a fast BLAS and malloc; elsewhere do nothing.

    Imports MLX. `mixer_mlx.ops` calls it, so every model has it.
    """
    if sys.platform != "linux":
        return Prepared(reason="only needed on Linux")
    malloc = os.environ.get("MIXER_MLX_MALLOC") != "0" and _tune_malloc()
    return replace(_prepare_blas(), malloc=malloc)


def _prepare_blas() -> Prepared:
    if os.environ.get("MIXER_MLX_OPENBLAS") == "0":
        return Prepared(reason=OFF)
    slots = _slots_of_mlx()
    if slots is None:
        return Prepared(reason=UNKNOWN_MLX)
    used = [elf.target(slot) for slot in slots.values()]
    if not all(map(_is_reference, used)):  # preloaded, or already ours
        return _inspect(used[0])
    path = _find_openblas()
    if path is None:
        return Prepared(reason=MISSING)
    try:
        library = ctypes.CDLL(path)
        functions = {slot: getattr(library, f"scipy_{name}") for name, slot in slots.items()}
        for slot, function in functions.items():
            elf.point(slot, function)
    except (OSError, AttributeError) as error:  # a hardened system, another scipy-openblas32
        return Prepared(reason=f"MLX's calls can't be redirected to OpenBLAS: {error}")
    return _inspect(path)


def _slots_of_mlx() -> dict[str, int] | None:
    """The jump slots of `_PRODUCTS` in libmlx.so; None unless all are found."""
    import mlx.core  # noqa: F401  # loads libmlx.so

    with suppress(OSError, KeyError):
        slots = elf.jump_slots(ctypes.CDLL(_LIBMLX, mode=os.RTLD_NOLOAD))
        return {name: slots[name] for name in _PRODUCTS}
    return None


def _find_openblas() -> str | None:
    """The library in scipy-openblas32, whose import would make its symbols global."""
    with suppress(ValueError):  # a mock module without a spec
        spec = importlib.util.find_spec("scipy_openblas32")
        if spec is not None and spec.origin is not None:
            found = Path(spec.origin).parent.glob("lib/libscipy_openblas*.so")
            return next(map(str, found), None)
    return None


def _is_reference(path: str) -> bool:
    """Whether this is a reference BLAS, MLX's or the system's; others may have its name."""
    if not Path(path).name.startswith(("libmlx", "libblas", "libcblas", "liblapack")):
        return False
    library = ctypes.CDLL(path)
    return not any(hasattr(library, name) for name in ("openblas_get_corename", "bli_init"))


def _inspect(path: str) -> Prepared:
    core, config, threads = (
        _openblas_function(path, f"get_{name}") for name in ("corename", "config", "num_threads")
    )
    if not (core and config and threads):  # preloaded: MKL, BLIS
        return Prepared(openblas=path)
    core.restype = config.restype = ctypes.c_char_p
    version = config().decode().split()[1]  # "OpenBLAS 0.3.34 DYNAMIC_ARCH ..."
    return Prepared(openblas=path, core=core().decode(), threads=threads(), version=version)


@functools.cache
def _openblas_function(path: str | None, name: str) -> ctypes._NamedFuncPointer | None:
    library = ctypes.CDLL(path) if path else None
    names = (f"scipy_openblas_{name}", f"openblas_{name}")
    return next((getattr(library, name) for name in names if hasattr(library, name)), None)


def set_threads(count: int) -> int | None:
    """Set the number of threads of MLX's matrix products; returns the previous one.

    If OpenBLAS doesn't compute them, changes nothing and returns None.
    """
    path = prepare().openblas
    get = _openblas_function(path, "get_num_threads")
    change = _openblas_function(path, "set_num_threads")
    if get is None or change is None:
        return None
    before: int = get()
    change(count)
    return before


def _tune_malloc() -> bool:
    """Let glibc's malloc keep freed arrays, whose pages the kernel would otherwise clear each time.

    Measured: element-wise chains over 4 M numbers take a sixth of the time; a compiled training
    step (1.1 M parameters, batch 128) has a thirtieth of the page faults at the same peak memory;
    a forward pass of width 768 gains nothing at batch 8, and at batch 32 has half the page faults
    at 1.3 times the peak memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and all(mallopt(*setting) == 1 for setting in _MALLOPT.items())
