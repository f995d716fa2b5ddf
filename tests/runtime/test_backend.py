import ctypes
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mixer_mlx import BackendError
from mixer_mlx.runtime import backend, openblas

linux = pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: Linux only")


def system_openblas() -> str:
    """How OpenBLAS was built; empty where the system has none."""
    for name in ("libopenblasp.so.0", "libopenblas.so.0", "libopenblaso.so.0", "libopenblas.so"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.openblas_get_config.restype = ctypes.c_char_p
        return str(library.openblas_get_config())
    return ""


OPENBLAS = system_openblas() if sys.platform == "linux" else ""
needs_openblas = pytest.mark.skipif(not OPENBLAS, reason="NOT RUN: no OpenBLAS on this Linux")
chooses_kernels = pytest.mark.skipif(
    "DYNAMIC_ARCH" not in OPENBLAS or platform.machine() != "x86_64",
    reason="NOT RUN: needs an OpenBLAS with kernels to choose from",
)


def child(code: str, **environment: str) -> Any:
    """What a fresh interpreter prints, as JSON. It may write nothing else and warn of nothing."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MIXER_MLX_", "MLX_", "OPENBLAS_", "LD_"))
    }
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, env=kept | environment)
    assert run.stderr == ""
    return json.loads(run.stdout)


OBSERVE = """
import ctypes, dataclasses, json, os, pathlib
from mixer_mlx.runtime import backend
import mlx.core as mx

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.getenv.restype = ctypes.c_char_p
block = libc.malloc(16 << 20)
maps = [line.split() for line in pathlib.Path("/proc/self/maps").read_text().splitlines()]
heap = [[int(end, 16) for end in line[0].split("-")] for line in maps if line[-1] == "[heap]"]
print(json.dumps({
    "prepared": dataclasses.asdict(backend.prepare()),
    "described": backend.describe(),
    "files": sorted({line[-1] for line in maps}),
    "core_type": [os.environ.get("OPENBLAS_CORETYPE"), str(libc.getenv(b"OPENBLAS_CORETYPE"))],
    "block_in_heap": any(low <= block < high for low, high in heap),
}))
"""


@pytest.fixture(scope="module")
def started() -> Any:
    return child(OBSERVE)


@needs_openblas
def test_openblas_is_loaded_and_described(started: Any) -> None:
    prepared, described = started["prepared"], started["described"]["blas"]
    assert prepared["openblas"] in started["files"]
    assert prepared["threads"] >= 1
    assert prepared["reason"] is None
    assert described["library"] == prepared["openblas"]
    assert (described["core"], described["threads"]) == (prepared["core"], prepared["threads"])


@needs_openblas
@pytest.mark.parametrize("count", [1, 2])
def test_threads_of_openblas_are_chosen_later(count: int) -> None:
    seen = child(f"""
import json
from mixer_mlx.runtime import openblas
openblas.set_threads({count})
print(json.dumps(openblas._inspect(openblas._global_blas()).threads))
""")
    assert seen == count


@needs_openblas
def test_core_type_does_not_leak(started: Any) -> None:
    assert started["core_type"] == [None, "None"]
    assert "OPENBLAS_CORETYPE" not in started["described"]["environment"]


@chooses_kernels
def test_avx512_kernels_where_the_processor_has_them(started: Any) -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    if not {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"} <= set(flags):
        pytest.skip("NOT RUN: this processor has no AVX-512")
    assert started["prepared"]["core"] == "SkylakeX"


@chooses_kernels
def test_core_type_of_the_user_is_respected() -> None:
    seen = child(OBSERVE, OPENBLAS_CORETYPE="Nehalem")
    assert seen["prepared"]["core"] == "Nehalem"
    assert seen["core_type"] == ["Nehalem", "b'Nehalem'"]


@needs_openblas
def test_mlx_binds_to_openblas_and_numpy_does_not(tmp_path: Path) -> None:
    code = "import mixer_mlx, mlx.core, numpy; print(0)"
    child(code, LD_DEBUG="bindings", LD_DEBUG_OUTPUT=str(tmp_path / "log"))
    (log,) = tmp_path.glob("log.*")
    bound = [line for line in log.read_text().splitlines() if "/libopenblas" in line]
    assert any("libmlx.so" in line and "`cblas_sgemm'" in line for line in bound)
    assert not [line for line in bound if "/numpy.libs/" in line]


@needs_openblas
def test_matrix_product_is_right() -> None:
    code = """
import json, mixer_mlx, numpy as np, mlx.core as mx
a, b = np.random.default_rng(0).standard_normal((2, 768, 768))
a, b = a.astype(np.float32), b.astype(np.float32)
product = np.array(mx.matmul(mx.array(a), mx.array(b), stream=mx.cpu))
print(json.dumps(float(np.abs(product - a.astype(float) @ b.astype(float)).max())))
"""
    assert child(code) < 2e-4  # entries are about 28; TF32 or bfloat16 would be off by 0.05


@linux
def test_switches(started: Any) -> None:
    off = child(OBSERVE, MIXER_MLX_OPENBLAS="0", MIXER_MLX_MALLOC="0")
    assert not [file for file in off["files"] if "/libopenblas" in file]
    assert off["prepared"]["openblas"] is None
    assert "MIXER_MLX_OPENBLAS" in off["described"]["blas"]["reason"]
    assert off["described"]["malloc"] == "default"
    assert off["described"]["environment"] == {"MIXER_MLX_MALLOC": "0", "MIXER_MLX_OPENBLAS": "0"}
    if platform.libc_ver()[0] == "glibc":
        assert started["described"]["malloc"] == "tuned"
        assert started["block_in_heap"]
        assert not off["block_in_heap"]


LATE = """
import json, warnings
import mlx.core
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import mixer_mlx
    mixer_mlx.runtime.openblas.prepare()
prepared = mixer_mlx.runtime.openblas.prepare()
print(json.dumps({
    "seen": [[w.category.__name__, w.filename, w.lineno, str(w.message)] for w in seen],
    "openblas": prepared.openblas,
    "reason": prepared.reason,
    "gpu": mlx.core.is_available(mlx.core.gpu),
}))
"""


@needs_openblas
def test_importing_mlx_first_warns_once_at_the_import() -> None:
    late = child(LATE)
    if late["gpu"]:
        pytest.skip("NOT RUN: with a GPU the CPU's BLAS does not matter")
    ((category, filename, line, message),) = late["seen"]
    assert (category, filename, line) == ("RuntimeWarning", "<string>", 6)
    assert "import mixer_mlx before mlx" in message
    assert late["openblas"] is None
    assert late["reason"] == "MLX was imported before mixer_mlx"


@linux
def test_importing_mlx_first_is_silent_when_switched_off() -> None:
    assert child(LATE, MIXER_MLX_OPENBLAS="0")["seen"] == []


@needs_openblas
def test_preloaded_openblas_is_taken_as_it_is(started: Any) -> None:
    path = started["prepared"]["openblas"]
    late = child(LATE, LD_PRELOAD=path)
    assert late["seen"] == []
    assert late["openblas"] == path


@linux
def test_no_openblas_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIXER_MLX_OPENBLAS", raising=False)
    monkeypatch.setattr(openblas, "_global_blas", lambda: None)
    monkeypatch.setattr(openblas, "_SONAMES", ("libnowhere.so.0",))
    assert openblas._prepare_blas() == openblas.Prepared(reason="no OpenBLAS found")


def test_elsewhere_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", None)
    prepared = openblas.prepare.__wrapped__()
    assert prepared == openblas.Prepared(reason="only needed on Linux")


CPUINFO = "processor\t: 0\nmodel name\t: {}\nflags\t\t: fpu sse4_2 avx2 fma {}\nbugs\t\t: x\n"
ICE_LAKE = "avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx512vbmi"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CPUINFO.format("Intel(R) Xeon(R) Gold 6330", ICE_LAKE), True),
        (CPUINFO.format("AMD EPYC 9755", "avx512f avx512dq avx512cd avx512bw avx512vl"), True),
        (CPUINFO.format("AMD EPYC 7742", "clflushopt"), False),
        (CPUINFO.format("Intel(R) Xeon Phi(TM) 7250", "avx512f avx512pf avx512er avx512cd"), False),
        (CPUINFO.format("Core", "") + CPUINFO.format("Core", ICE_LAKE), False),
        ("processor\t: 0\nFeatures\t: fp asimd sve\n", False),
        ("", False),
    ],
)
def test_avx512_in_cpuinfo(tmp_path: Path, text: str, expected: bool) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert openblas._has_avx512(str(path)) is expected


def test_avx512_without_cpuinfo(tmp_path: Path) -> None:
    assert openblas._has_avx512(str(tmp_path / "cpuinfo")) is False


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend.device() == mx.default_device()
    assert backend.device("cpu") == mx.Device(mx.cpu)
    monkeypatch.setattr(mx, "is_available", lambda kind: True)
    assert backend.device("gpu") == mx.Device(mx.gpu)
    with pytest.raises(BackendError, match=r"Unknown device 'tpu'; choose 'cpu' or 'gpu'"):
        backend.device("tpu")


def test_device_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "is_available", lambda kind: kind == mx.cpu)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(BackendError, match=r"'cpu'.* `pip install 'mixer-mlx\[cuda13\]'`"):
        backend.device("gpu")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(BackendError, match=r"^MLX has no GPU here; choose the device 'cpu'\.$"):
        backend.device("gpu")


def test_dtypes() -> None:
    cpu, gpu = mx.Device(mx.cpu), mx.Device(mx.gpu)
    assert backend.dtype(None, cpu) == backend.default_dtype(cpu) == mx.float32
    assert backend.dtype(None, gpu) == backend.default_dtype(gpu) == mx.float16
    assert backend.dtype("bfloat16", cpu) == mx.bfloat16
    assert backend.dtype("float32", gpu) == mx.float32
    assert backend.dtype_name(mx.bfloat16) == "bfloat16"
    for name in ("float64", "__name__"):
        with pytest.raises(BackendError, match="one of float32, float16, bfloat16"):
            backend.dtype(name, cpu)


def can_compile() -> bool:
    return backend.describe()["compile"]["works"]  # type: ignore[index]


def test_can_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLX_DISABLE_COMPILE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(backend, "gpu_is_default", lambda: False)
    assert not can_compile()
    assert "apt-get install g++" in str(backend.describe()["advice"])
    monkeypatch.setattr(backend, "gpu_is_default", lambda: True)
    assert can_compile()
    monkeypatch.setattr(backend, "gpu_is_default", lambda: False)
    (tmp_path / "g++").touch(mode=0o755)
    assert can_compile()
    monkeypatch.setenv("MLX_DISABLE_COMPILE", "0")  # MLX asks only whether it is there
    assert not can_compile()
    assert "Unset MLX_DISABLE_COMPILE" in str(backend.describe()["advice"])


def test_describe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXER_MLX_MODEL", "cifar10")
    monkeypatch.setenv("HF_TOKEN", "secret")
    seen = backend.describe()
    assert json.loads(json.dumps(seen)) == seen
    assert seen["mixer_mlx"] == importlib.metadata.version("mixer-mlx")
    assert seen["mlx"] == importlib.metadata.version("mlx")
    assert seen["device"] == mx.default_device().type.name
    assert isinstance(seen["environment"], dict)
    assert seen["environment"]["MIXER_MLX_MODEL"] == "cifar10"
    assert "secret" not in json.dumps(seen)
    if sys.platform == "linux":
        kib = int(Path("/proc/meminfo").read_text().split()[1])  # MemTotal: comes first
        assert seen["memory_gb"] == pytest.approx(kib / 2**20, abs=0.06)
        assert seen["cores"] == len(os.sched_getaffinity(0))


def test_describe_on_metal(monkeypatch: pytest.MonkeyPatch) -> None:
    info = {
        "device_name": "Apple M3",
        "memory_size": 16 << 30,
        "max_recommended_working_set_size": 12 << 30,
    }
    monkeypatch.delenv("MLX_DISABLE_COMPILE", raising=False)
    monkeypatch.setattr(mx, "device_info", lambda device: info)
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(backend, "prepare", lambda: openblas.Prepared(reason="no OpenBLAS found"))
    seen = backend.describe()
    assert (seen["device"], seen["device_name"]) == ("gpu", "Apple M3")
    assert seen["default_dtype"] == "float16"
    assert seen["gpu_memory_gb"] == 12.0
    assert seen["advice"] == []


def test_advice_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "gpu_is_default", lambda: False)
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/proc/driver/nvidia/version")
    monkeypatch.setattr(backend, "prepare", lambda: openblas.Prepared(reason="no OpenBLAS found"))
    gpu, missing, *_ = backend.describe()["advice"]  # type: ignore[misc]
    assert "pip install 'mixer-mlx[cuda13]'" in gpu
    assert "apt-get install libopenblas0-pthread" in missing
