"""Measurements as JSON, as a chart, and compared with those of another run."""

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
from mixer_mlx.config import MixerConfig
from mixer_mlx.errors import ConfigError
from mixer_mlx.runtime import backend
from mixer_mlx.runtime.documents import read_json

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
    """What speed depends on besides the model, from `backend.describe`, and the date (UTC)."""
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
    """Plain values for JSON; docs/cli.md explains the keys.

    `job` is "predict" or "train", `recipe` the name of the training recipe.
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
    """A record as the text of a file for `Earlier.read`."""
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Earlier:
    """Another run's record: images per second by case, and its circumstances."""

    rates: Mapping[Case, float]
    circumstances: Mapping[str, object]

    @classmethod
    def read(cls, path: Path) -> "Earlier":
        """Read a file written from `to_json`. Raises ConfigError."""
        try:
            values = read_json(path)
        except ConfigError as error:
            raise ConfigError(f"Can't compare with {path}: {error}") from error
        found = values.get("benchmark_format")
        if found is None:
            raise ConfigError(
                f"{path} wasn't written by `benchmark.report.to_json`; choose another file."
            )
        if found != FORMAT:
            raise ConfigError(
                f"Expected format {FORMAT} in {path}, not {found!r}; measure both with the same "
                "version."
            )
        try:
            return cls.of(values)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path} is damaged ({type(error).__name__}: {error}); measure again."
            ) from error

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Earlier":
        """Raises KeyError, TypeError or ValueError if it isn't from `record`."""
        if not isinstance(record["environment"], Mapping):
            raise TypeError("environment isn't an object")
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
    """`ratios`: images per second here relative to there, by result; None if there is no match.

    `differences` in circumstances, except the date: name -> (here, there).
    """

    ratios: tuple[float | None, ...]
    differences: Mapping[str, tuple[object, object]]


def compare(record: Mapping[str, object], earlier: Earlier) -> Comparison:
    """Compare the record of this run with an earlier one."""
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
    """Images per second by batch size (log scale), one curve per dtype.

    The title has the end of the model's name, cut to leave room for the legend.
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
