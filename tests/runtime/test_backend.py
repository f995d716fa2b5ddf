import ctypes
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mixer_mlx import BackendError
from mixer_mlx.runtime import backend, elf, openblas

linux = pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: Linux only")
SPEC = importlib.util.find_spec("scipy_openblas32") if sys.platform == "linux" else None
PACKAGE = str(Path(str(SPEC.origin)).parent / "lib" / "libscipy_openblas.so") if SPEC else ""
needs_package = pytest.mark.skipif(not SPEC, reason="NOT RUN: needs scipy-openblas32 on Linux")
needs_gcc = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="NOT RUN: needs gcc on Linux"
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
import ctypes, dataclasses, json, pathlib
from mixer_mlx.runtime import backend

prepared = dataclasses.asdict(backend.prepare())
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
block = libc.malloc(16 << 20)
maps = [line.split() for line in pathlib.Path("/proc/self/maps").read_text().splitlines()]
heap = [[int(end, 16) for end in line[0].split("-")] for line in maps if line[-1] == "[heap]"]
print(json.dumps({
    "prepared": prepared,
    "described": backend.describe(),
    "files": sorted({line[-1] for line in maps}),
    "block_in_heap": any(low <= block < high for low, high in heap),
}))
"""


@pytest.fixture(scope="module")
def started() -> Any:
    return child(OBSERVE)


@needs_package
def test_openblas_is_loaded_and_described(started: Any) -> None:
    prepared, described = started["prepared"], started["described"]["blas"]
    assert prepared["openblas"] == PACKAGE
    assert PACKAGE in started["files"]
    assert prepared["threads"] >= 1
    assert importlib.metadata.version("scipy-openblas32").startswith(described["version"])
    assert described["library"] == PACKAGE
    assert described["reason"] is None
    assert (described["core"], described["threads"]) == (prepared["core"], prepared["threads"])
    assert "OpenBLAS" not in str(started["described"]["advice"])


@needs_package
@pytest.mark.parametrize("count", [1, 2])
def test_threads_of_openblas_are_chosen_later(count: int) -> None:
    seen = child(f"""
import ctypes, json
from mixer_mlx.runtime import openblas
openblas.set_threads({count})
print(json.dumps(ctypes.CDLL({PACKAGE!r}).scipy_openblas_get_num_threads()))
""")
    assert seen == count


@needs_package
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("transposed", [(), (0,), (1,), (0, 1)], ids=str)
def test_matrix_products_are_numpys(dtype: str, transposed: tuple[int, ...]) -> None:
    assert openblas.prepare().openblas == PACKAGE
    rng = np.random.default_rng(0)
    with mx.stream(mx.cpu):
        factors, exact = [], []
        for i, shape in enumerate([(67, 130), (130, 45)]):
            values = rng.standard_normal(shape[::-1] if i in transposed else shape)
            if dtype == "complex64":
                values = values + 1j * rng.standard_normal(values.shape)
            factor = mx.array(values.astype(dtype), dtype=getattr(mx, dtype))
            factors.append(factor.T if i in transposed else factor)
            exact.append(values.T if i in transposed else values)
        product = np.array(factors[0] @ factors[1])
    # Entries are about 11; TF32 would be off by 0.01.
    tolerance = 1e-12 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(product, exact[0] @ exact[1], rtol=0, atol=tolerance)


PRODUCT = """
import ctypes, json
import numpy as np
a, b = np.random.default_rng(0).standard_normal((2, 150, 150)).astype(np.float32)

def by_mlx():
    import mlx.core as mx
    return np.array(mx.matmul(mx.array(a), mx.array(b), stream=mx.cpu))

def by_package():
    library, c, one = ctypes.CDLL(PATH), np.zeros_like(a), ctypes.c_float(1)
    library.scipy_openblas_set_num_threads(1)
    address = lambda x: ctypes.c_void_p(x.ctypes.data)
    order = (101, 111, 111, 150, 150, 150)  # row-major, neither is transposed
    zero = ctypes.c_float(0)
    library.scipy_cblas_sgemm(*order, one, address(a), 150, address(b), 150, zero, address(c), 150)
    return c
"""
COMPARE = """
same = lambda: bool((by_mlx() == by_package()).all())
first = same()
mixer_mlx.MlpMixer
print(json.dumps([first, same()]))
"""


@needs_package
@pytest.mark.parametrize(
    "imports",
    [
        "import mixer_mlx, mlx.core",
        "import mlx.core, mixer_mlx",
        "by_mlx(); import mixer_mlx",
        "import mixer_mlx; by_mlx()",
    ],
)
def test_any_order_of_imports(imports: str) -> None:
    """The reference BLAS rounds otherwise, so equal bits are the package's."""
    code = f"PATH = {PACKAGE!r}{PRODUCT}{imports}{COMPARE}"
    assert child(code, OPENBLAS_NUM_THREADS="1") == [False, True]


def test_importing_the_package_leaves_mlx_as_it_is() -> None:
    code = "import json, sys, mixer_mlx; print(json.dumps([n for n in sys.modules if 'mlx.' in n]))"
    assert "mlx.core" not in child(code)


@needs_package
def test_a_second_call_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = openblas.prepare()
    monkeypatch.setattr(elf, "point", None)
    assert openblas.prepare() is first
    assert openblas.prepare.__wrapped__() == first


@linux
def test_switches(started: Any) -> None:
    off = child(OBSERVE, MIXER_MLX_OPENBLAS="0", MIXER_MLX_MALLOC="0")
    assert not [file for file in off["files"] if "/libscipy_openblas.so" in file]
    assert off["prepared"]["openblas"] is None
    assert "MIXER_MLX_OPENBLAS" in off["described"]["blas"]["reason"]
    assert off["described"]["malloc"] == "default"
    assert off["described"]["environment"] == {"MIXER_MLX_MALLOC": "0", "MIXER_MLX_OPENBLAS": "0"}
    if platform.libc_ver()[0] == "glibc":
        assert started["described"]["malloc"] == "tuned"
        assert started["block_in_heap"]
        assert not off["block_in_heap"]


@linux
def test_package_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(openblas, "_is_reference", lambda path: True)
    monkeypatch.setattr(elf, "point", None)
    assert openblas._prepare_blas() == openblas.Prepared(reason="scipy-openblas32 isn't installed")


@needs_package
def test_a_hardened_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(slot: int, function: object) -> None:
        raise OSError("its memory is protected")

    monkeypatch.setattr(openblas, "_is_reference", lambda path: True)
    monkeypatch.setattr(elf, "point", refuse)
    prepared = openblas._prepare_blas()
    assert prepared.openblas is None
    assert prepared.reason == "MLX's calls can't be redirected to OpenBLAS: its memory is protected"


def compiled(folder: Path, name: str, code: str, *flags: str) -> str:
    """The path of a shared library."""
    (folder / "code.c").write_text(code)
    path = folder / f"lib{name}.so"
    command = ["gcc", "-shared", "-fPIC", "-o", str(path), str(folder / "code.c"), *flags]
    subprocess.run(command, check=True)
    return str(path)


def caller(folder: Path, *flags: str) -> ctypes.CDLL:
    """A library whose `call` returns its callee's 1."""
    callee = compiled(folder, "callee", "int callee(void) { return 1; }")
    code = "int callee(void); int call(void) { return callee(); }"
    return ctypes.CDLL(compiled(folder, "caller", code, callee, f"-Wl,-rpath,{folder}", *flags))


def page_access(address: int) -> str:
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= address < high:
            return line.split()[1]
    raise AssertionError(address)


@needs_gcc
@pytest.mark.parametrize(
    ("binding", "access"),
    [(("-Wl,-z,lazy",), "rw-p"), (("-Wl,-z,relro", "-Wl,-z,now"), "r--p")],
    ids=["writable", "protected"],
)
def test_jump_slot_of_a_library(tmp_path: Path, binding: tuple[str, ...], access: str) -> None:
    library = caller(tmp_path, *binding)
    slot = elf.jump_slots(library)["callee"]
    assert page_access(slot) == access
    assert library.call() == 1
    callback = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 2)
    elf.point(slot, callback)
    assert library.call() == 2
    assert page_access(slot) == access


@linux
def test_addresses_without_the_base_as_in_musl(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ctypes.CDLL("libmlx.so")
    expected = elf.jump_slots(library)
    section = elf._dynamic_section

    def unrelocated(link: elf._LinkMap) -> dict[int, int]:
        addresses = (5, 6, 23)  # of strings, symbols and jump slots
        return {k: v - link.base * (k in addresses) for k, v in section(link).items()}

    monkeypatch.setattr(elf, "_dynamic_section", unrelocated)
    assert elf.jump_slots(library) == expected
    assert "cblas_sgemm" in expected


@linux
@pytest.mark.parametrize("library", [mx.__file__, "libnowhere.so"], ids=["no_slots", "not_loaded"])
def test_another_mlx_is_left_alone(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openblas, "_LIBMLX", library)
    monkeypatch.setattr(elf, "point", None)
    assert openblas._prepare_blas() == openblas.Prepared(reason=openblas.UNKNOWN_MLX)


@needs_gcc
def test_an_mlx_with_some_of_the_slots_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "int cblas_sgemm(void); int call(void) { return cblas_sgemm(); }"
    library = ctypes.CDLL(compiled(tmp_path, "mlx_like", code), mode=os.RTLD_LAZY)
    monkeypatch.setattr(openblas, "_LIBMLX", library._name)
    monkeypatch.setattr(elf, "point", None)
    assert openblas._prepare_blas() == openblas.Prepared(reason=openblas.UNKNOWN_MLX)


BLAS = "void cblas_sgemm(void) {} void cblas_dgemm(void) {} void cblas_cgemm(void) {}"
FUNCTIONS_OF_OPENBLAS = """
const char *openblas_get_corename(void) { return "Core"; }
const char *openblas_get_config(void) { return "OpenBLAS 9.8.7 DYNAMIC_ARCH"; }
static int threads = 3;
int openblas_get_num_threads(void) { return threads; }
void openblas_set_num_threads(int count) { threads = count; }
"""


@needs_gcc
@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("mkl_rt", "", [None, None, None, None]),
        ("blas", "void bli_init(void) {}", [None, None, None, None]),  # BLIS on Debian
        ("blas", FUNCTIONS_OF_OPENBLAS, ["Core", 3, "9.8.7", 3]),  # OpenBLAS on Debian
    ],
    ids=["mkl", "blis", "openblas"],
)
def test_preloaded_library_is_left_alone(
    tmp_path: Path, name: str, more: str, expected: list[object]
) -> None:
    path = compiled(tmp_path, name, BLAS + more)
    code = """
import json
from mixer_mlx.runtime import elf, openblas
elf.point = None
seen = openblas.prepare()
found = [seen.core, seen.threads, seen.version, openblas.set_threads(1)]
print(json.dumps([seen.openblas, seen.reason, found]))
"""
    assert child(code, LD_PRELOAD=path) == [path, None, expected]


def test_elsewhere_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", None)
    prepared = openblas.prepare.__wrapped__()
    assert prepared == openblas.Prepared(reason="only needed on Linux")


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
    monkeypatch.setattr(backend, "prepare", lambda: openblas.Prepared(reason=openblas.MISSING))
    seen = backend.describe()
    assert (seen["device"], seen["device_name"]) == ("gpu", "Apple M3")
    assert seen["default_dtype"] == "float16"
    assert seen["gpu_memory_gb"] == 12.0
    assert seen["advice"] == []


def test_advice_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "gpu_is_default", lambda: False)
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/proc/driver/nvidia/version")
    monkeypatch.setattr(backend, "prepare", lambda: openblas.Prepared(reason=openblas.MISSING))
    gpu, missing, *_ = backend.describe()["advice"]  # type: ignore[misc]
    assert "pip install 'mixer-mlx[cuda13]'" in gpu
    assert "pip install 'mixer-mlx[cpu]'" in missing
