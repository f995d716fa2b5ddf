"""What was measured, as a JSON file, as curves, and beside what was measured elsewhere."""

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mixer_mlx.analysis.curves import Panel
from mixer_mlx.checkpoint import read_json
from mixer_mlx.config import MixerConfig
from mixer_mlx.errors import ConfigError
from mixer_mlx.runtime import backend

from .jobs import forward_flops
from .measure import Measured

FORMAT = 1
_TITLE = 34

_ENVIRONMENT = (
    *("mixer_mlx", "mlx", "python", "platform", "device", "device_name", "default_dtype"),
    *("cores", "memory_gb", "gpu_memory_gb", "blas", "malloc", "compile", "environment"),
)

Case = tuple[str, int]
"""Dtype and batch size."""


def environment(device: mx.Device) -> dict[str, object]:
    """What speed depends on beside the model: of `backend.describe`, and the date (UTC)."""
    with mx.stream(device):
        known = backend.describe()
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"date": date, **{key: known[key] for key in _ENVIRONMENT if key in known}}


def record(
    config: MixerConfig,
    measured: Measured,
    device: mx.Device,
    *,
    model: str,
    job: str = "predict",
    recipe: str | None = None,
) -> dict[str, object]:
    """All of it as plain values for JSON, with the keys that docs/cli.md explains.

    `job` is "predict" or "train", `recipe` the name of what was trained with.
    """
    return {
        "benchmark_format": FORMAT,
        "environment": environment(device),
        "model": model,
        "variant": config.variant_name,
        "image_size": list(config.image_size),
        "parameters": config.num_parameters,
        "flops_per_image": forward_flops(config),
        "job": job,
        "recipe": recipe,
        "ceilings": [dataclasses.asdict(ceiling) for ceiling in measured.ceilings],
        "results": [dataclasses.asdict(result) for result in measured.results],
    }


def to_json(record: Mapping[str, object]) -> str:
    """The text of a file that `Earlier.read` reads."""
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Earlier:
    """What another record says: images per second by case, and under which circumstances."""

    rates: Mapping[Case, float]
    circumstances: Mapping[str, object]

    @classmethod
    def read(cls, path: Path) -> "Earlier":
        """Read a file of `to_json`. Raises ConfigError."""
        try:
            values = read_json(path)
        except ConfigError as error:
            raise ConfigError(f"{path} can't be compared with: {error}") from error
        found = values.get("benchmark_format")
        if found is None:
            raise ConfigError(f"{path} is no file that `mixer benchmark -o` wrote; choose another.")
        if found != FORMAT:
            raise ConfigError(
                f"{path} is of format {found!r} and this version reads {FORMAT}; measure both "
                "with the same version."
            )
        try:
            return cls.of(values)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path} is damaged ({type(error).__name__}: {error}); measure again."
            ) from error

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Earlier":
        """Raises KeyError, TypeError or ValueError for what no `record` made."""
        if not isinstance(record["environment"], Mapping):
            raise TypeError("environment is no table")
        rates = {}
        for result in record["results"]:
            rate = float(result["images_per_second"])
            if not 0 < rate < math.inf:
                raise ValueError(f"images_per_second is {rate}")
            rates[str(result["dtype"]), int(result["batch_size"])] = rate
        keys = ("environment", "model", "image_size", "parameters", "job", "recipe")
        circumstances = dict(_flat({key: record[key] for key in keys}))
        circumstances.pop("environment.date", None)
        return cls(rates, circumstances)


@dataclass(frozen=True)
class Comparison:
    """`ratios`: images per second here over those there, for each result; None for a new case.

    `differences`: what is not the same, but the date: name -> (here, there).
    """

    ratios: tuple[float | None, ...]
    differences: Mapping[str, tuple[object, object]]


def compare(record: Mapping[str, object], earlier: Earlier) -> Comparison:
    """Hold a record of this run against another one."""
    now = Earlier.of(record)
    here, there = now.circumstances, earlier.circumstances
    return Comparison(
        tuple(
            rate / earlier.rates[case] if case in earlier.rates else None
            for case, rate in now.rates.items()
        ),
        {
            name: (here.get(name), there.get(name))
            for name in {**here, **there}
            if here.get(name) != there.get(name)
        },
    )


def panel(model: str, measured: Measured) -> Panel:
    """Images per second by batch size, a curve for each dtype; batch sizes are log-spaced.

    The end of the model's name stands above it, as much as leaves room for the dtypes.
    """
    name = "".join(char if char.isprintable() else "?" for char in model)
    name = name if len(name) <= _TITLE else f"…{name[1 - _TITLE :]}"
    curves: dict[str, list[tuple[float, float]]] = {}
    for result in measured.results:
        point = math.log2(result.batch_size), result.images_per_second
        curves.setdefault(result.dtype, []).append(point)
    for points in curves.values():
        points.sort()
    labels = {math.log2(result.batch_size): str(result.batch_size) for result in measured.results}
    title = f"{name}: images/s by batch size"
    return Panel(title, curves, x_labels=labels, from_zero=True)


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
