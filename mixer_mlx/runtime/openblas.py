"""On Linux, a fast BLAS and malloc under MLX's CPU.

MLX's wheel for Linux includes the reference BLAS: on two cores of an AMD EPYC a float32 product of
1536 x 1536 matrices takes 20 (busy) to 40 times as long as with OpenBLAS. `prepare` loads the
system's OpenBLAS before it. That only works before MLX is imported, so `mixer_mlx/__init__.py` does
it first, and MLX is imported inside the functions here.

    MIXER_MLX_OPENBLAS=0    keeps the BLAS of MLX's wheel
    MIXER_MLX_MALLOC=0      keeps malloc's defaults
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

# Fedora's libopenblas.so.0 is single-threaded, so its threaded library comes first.
_SONAMES = ("libopenblasp.so.0", "libopenblas.so.0", "libopenblaso.so.0", "libopenblas.so")
_AVX512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"}
_MALLOPT = {  # glibc's malloc.h: parameter number, bytes
    -3: 32 << 20,  # M_MMAP_THRESHOLD; its maximum
    -1: 512 << 20,  # M_TRIM_THRESHOLD
    -2: 256 << 20,  # M_TOP_PAD: also for arrays above the first threshold
}

OFF = "switched off by MIXER_MLX_OPENBLAS=0"
MISSING = "no OpenBLAS found"
LATE = "MLX was imported before mixer_mlx"


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did.

    `openblas` is the library that computes MLX's matrix products on the CPU, `core` the processor
    that its kernels are for, `threads` its number of threads. If MLX keeps its own BLAS, all three
    are None and `reason` is why. `malloc`: whether glibc's malloc was tuned.
    """

    openblas: str | None = None
    core: str | None = None
    threads: int | None = None
    reason: str | None = None
    malloc: bool = False


@functools.cache
def prepare() -> Prepared:
    """On Linux, at the first call, give MLX's CPU a fast BLAS and malloc; elsewhere do nothing.

    Warns (RuntimeWarning) if MLX was imported first and can't use the installed OpenBLAS.
    """
    if sys.platform != "linux":
        return Prepared(reason="only needed on Linux")
    prepared = _prepare_blas()
    if prepared.reason == LATE and not gpu_is_default():
        warnings.warn(
            "MLX was imported before mixer_mlx and can't use the OpenBLAS installed here, which "
            "makes matrix products on the CPU tens of times slower; import mixer_mlx before mlx "
            "(MIXER_MLX_OPENBLAS=0 silences this warning).",
            RuntimeWarning,
            stacklevel=3,  # this function, mixer_mlx/__init__.py, the user's import
        )
    return replace(prepared, malloc=os.environ.get("MIXER_MLX_MALLOC") != "0" and _tune_malloc())


def _prepare_blas() -> Prepared:
    if os.environ.get("MIXER_MLX_OPENBLAS") == "0":
        return Prepared(reason=OFF)
    if _global_blas() is None:  # None is preloaded
        library = _find_openblas()
        if library is None:
            return Prepared(reason=MISSING)
        if "mlx.core" in sys.modules:
            return Prepared(reason=LATE)
        _bind_others()
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    return _inspect(_global_blas())


def _find_openblas() -> str | None:
    """Load the system's OpenBLAS, with its symbols still private; returns the name that was found.

    A version older than the processor falls back to AVX2 kernels, which can be half as fast as
    those for AVX-512. SKYLAKEX selects float32 kernels that work on all AVX-512 cores. OpenBLAS
    reads the variable when it is loaded; NumPy's own OpenBLAS and child processes mustn't see it.
    """
    choose = "OPENBLAS_CORETYPE" not in os.environ and _has_avx512()
    if choose:
        os.environ["OPENBLAS_CORETYPE"] = "SKYLAKEX"
    try:
        for name in _SONAMES:
            with suppress(OSError):
                if hasattr(ctypes.CDLL(name), "cblas_sgemm"):
                    return name
        return None
    finally:
        if choose:
            del os.environ["OPENBLAS_CORETYPE"]


def _has_avx512(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether the (first) processor supports SKYLAKEX kernels."""
    with suppress(OSError), open(cpuinfo) as lines:
        flags = next((line for line in lines if line.startswith("flags")), "")
        return set(flags.split()) >= _AVX512
    return False


def _bind_others() -> None:
    """Bind the OpenBLAS in NumPy's and SciPy's wheels to its own kernels before ours is global.

    It exports about a hundred of them under the same names; loaded later, it would call ours, which
    are of another version.
    """
    for package in ("numpy", "scipy"):
        with suppress(OSError, ValueError):  # ValueError: a mock module without a spec
            spec = importlib.util.find_spec(package)
            if spec is not None and spec.origin is not None:
                for library in Path(spec.origin).parents[1].glob(f"{package}.libs/*openblas*"):
                    ctypes.CDLL(str(library))


class _DlInfo(ctypes.Structure):
    """dladdr(3)."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def set_threads(count: int) -> int | None:
    """Set the number of threads of MLX's matrix products; returns the previous one.

    If OpenBLAS doesn't compute them, changes nothing and returns None.
    """
    library = _openblas()
    if library is None:
        return None
    before: int = library.openblas_get_num_threads()
    library.openblas_set_num_threads(count)
    return before


@functools.cache
def _openblas() -> ctypes.CDLL | None:
    path = _global_blas() if sys.platform == "linux" else None
    library = ctypes.CDLL(path) if path else None
    return library if hasattr(library, "openblas_set_num_threads") else None


def _global_blas() -> str | None:
    """The library that provides the global symbol `cblas_sgemm`, if any."""
    process = ctypes.CDLL(None)
    info = _DlInfo()
    if not hasattr(process, "cblas_sgemm"):
        return None
    process.dladdr(process.cblas_sgemm, ctypes.byref(info))
    return os.path.realpath(os.fsdecode(info.file))


def _inspect(path: str | None) -> Prepared:
    library = ctypes.CDLL(path)
    if not hasattr(library, "openblas_get_corename"):  # preloaded: MKL, BLIS
        return Prepared(openblas=path)
    library.openblas_get_corename.restype = ctypes.c_char_p
    core = library.openblas_get_corename().decode()
    return Prepared(openblas=path, core=core, threads=library.openblas_get_num_threads())


def _tune_malloc() -> bool:
    """Let glibc's malloc keep freed arrays, whose pages the kernel would otherwise clear each time.

    Measured: element-wise chains over 4 M numbers take a sixth of the time; a compiled training
    step (1.1 M parameters, batch 128) has a thirtieth of the page faults at the same peak memory;
    a forward pass of width 768 gains nothing at batch 8, and at batch 32 has half the page faults
    at 1.3 times the peak memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and all(mallopt(*setting) == 1 for setting in _MALLOPT.items())


def gpu_is_default() -> bool:
    """Whether MLX's default device is a GPU."""
    import mlx.core as mx

    return mx.default_device().type == mx.DeviceType.gpu
