"""Where MLX computes: device, dtype, and a description of this installation."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from typing import TYPE_CHECKING, cast, get_args

from mixer_mlx.choices import Device, DType
from mixer_mlx.errors import BackendError

from . import machine
from .openblas import MISSING, OFF, prepare

if TYPE_CHECKING:
    import mlx.core as mx

    from mixer_mlx.config import MixerConfig

_NO_COMPILER = "g++ not found"
_NO_COMPILE = "MLX_DISABLE_COMPILE is set (to any value)"

_NEXT_STEP = {
    OFF: "Unset MIXER_MLX_OPENBLAS: matrix products are tens of times faster with OpenBLAS.",
    MISSING: "Install OpenBLAS, which makes matrix products tens of times faster: "
    "pip install 'mixer-mlx[cpu]'.",
    _NO_COMPILER: "Install g++, by which MLX fuses element-wise operations: apt-get install g++.",
    _NO_COMPILE: "Unset MLX_DISABLE_COMPILE: element-wise operations are slower without fusion.",
}


def device(name: str | None = None) -> mx.Device:
    """The device called "cpu" or "gpu"; None is MLX's default. Raises BackendError."""
    import mlx.core as mx

    if name is None:
        return mx.default_device()
    if name not in get_args(Device):
        raise BackendError(f"Unknown device {name!r}; choose 'cpu' or 'gpu'.")
    kind = mx.DeviceType[name]
    if not mx.is_available(kind):
        install = ""
        if sys.platform == "linux":
            install = " or, for an NVIDIA GPU, `pip install 'mixer-mlx[cuda13]'` (or `[cuda12]`)"
        raise BackendError(f"MLX has no {name.upper()} here; choose the device 'cpu'{install}.")
    return mx.Device(kind)


def gpu_is_default() -> bool:
    """Whether MLX's default device is a GPU."""
    import mlx.core as mx

    return mx.default_device().type == mx.DeviceType.gpu


def default_dtype(device: mx.Device) -> mx.Dtype:
    """float32 on a CPU, whose half precision is slow, and float16 on a GPU.

    float16 because the first Apple GPUs have no bfloat16, and because it has three more bits of
    precision; for NVIDIA GPUs this is a judgement, not a measurement.
    """
    import mlx.core as mx

    return mx.float16 if device.type == mx.DeviceType.gpu else mx.float32


def dtype(name: str | None, device: mx.Device) -> mx.Dtype:
    """The dtype of that name; None is the device's default. Raises BackendError."""
    import mlx.core as mx

    if name is None:
        return default_dtype(device)
    if name not in get_args(DType):
        known = ", ".join(get_args(DType))
        raise BackendError(f"Unknown dtype {name!r}; choose one of {known}.")
    chosen: mx.Dtype = getattr(mx, name)
    return chosen


def dtype_name(dtype: mx.Dtype) -> DType:
    """E.g. "float32"."""
    return cast(DType, str(dtype).removeprefix("mlx.core."))


def worth_compiling(config: MixerConfig, batch_size: int, threshold: int) -> bool:
    """Whether to compile a model that runs many times with this batch size.

    Always on a GPU. On the CPU from `threshold` numbers in a block's output on: there MLX runs
    g++, which takes seconds the first time on a machine.
    """
    return gpu_is_default() or batch_size * config.num_tokens * config.hidden_dim >= threshold


def _compile_obstacle() -> str | None:
    """Why `mx.compile` fuses nothing on the default device, where it is a silent no-op."""
    if "MLX_DISABLE_COMPILE" in os.environ:
        return _NO_COMPILE
    if not gpu_is_default() and shutil.which("g++") is None:  # what MLX runs for the CPU
        return _NO_COMPILER
    return None


def describe() -> dict[str, object]:
    """This installation, ready for JSON; `advice` lists how to make it faster."""
    from importlib.metadata import version  # slow to import, and used only here

    import mlx.core as mx

    default = mx.default_device()
    prepared = prepare()
    obstacle = _compile_obstacle()
    return {
        "mixer_mlx": version("mixer-mlx"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "mlx": version("mlx"),
        "device": default.type.name,
        "device_name": mx.device_info(default).get("device_name"),
        "devices": [kind.name for kind in mx.DeviceType if mx.is_available(kind)],
        "default_dtype": dtype_name(default_dtype(default)),
        "cores": machine.cores(),
        **{name: round(size / 2**30, 1) for name, size in _memory(default).items()},
        "blas": {
            "library": prepared.openblas or "MLX's own",
            "core": prepared.core,
            "threads": prepared.threads,
            "version": prepared.version,
            "reason": prepared.reason,
        },
        "malloc": "tuned" if prepared.malloc else "default",
        "compile": {"works": obstacle is None, "reason": obstacle},
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("MIXER_MLX_", "MLX_", "OPENBLAS_"))
        },
        "advice": _advice(prepared.reason, obstacle),
    }


def memory_bytes() -> int:
    """Memory available to the default device: a GPU's own, or the machine's."""
    import mlx.core as mx

    known = _memory(mx.default_device())
    return known.get("gpu_memory_gb", known["memory_gb"])


def _memory(device: mx.Device) -> dict[str, int]:
    """Bytes in the machine, and those a GPU may use: on Metal the recommended working set."""
    import mlx.core as mx

    info = mx.device_info(device)
    bytes_of = {"memory_gb": machine.memory_bytes()}
    for key in ("total_memory", "max_recommended_working_set_size"):
        if key in info and gpu_is_default():
            bytes_of["gpu_memory_gb"] = int(info[key])
    return bytes_of


def _advice(reason: str | None, obstacle: str | None) -> list[str]:
    """Next steps, given why MLX's CPU doesn't use OpenBLAS and why it can't compile."""
    advice = []
    if not gpu_is_default():
        if os.path.exists("/proc/driver/nvidia/version"):
            advice.append(
                "Use the NVIDIA GPU: pip install 'mixer-mlx[cuda13]' ([cuda12] for older drivers)."
            )
        if reason in _NEXT_STEP:
            advice.append(_NEXT_STEP[reason])
    if obstacle in _NEXT_STEP:
        advice.append(_NEXT_STEP[obstacle])
    return advice
