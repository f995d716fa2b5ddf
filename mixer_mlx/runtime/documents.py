"""Read JSON, TOML and text of users and of the network, whatever they hold.

Only regular files of bounded size are read; numbers are finite and of few digits, and keys aren't
repeated. What else can go wrong is a ConfigError, too.
"""

import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixer_mlx.errors import ConfigError

from .files import open_regular

MAX_BYTES = 64 * 2**20
"""Size of a document."""
MAX_DIGITS = 100
"""Digits of a whole number."""


def read_text(path: Path, encoding: str = "utf-8", *, limit: int = MAX_BYTES) -> str:
    """A text file of at most `limit` bytes. Raises ConfigError, which says "it ..." of the file."""
    try:
        with open_regular(path) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ConfigError(f"it is larger than {limit // 2**20:,} MiB.")
        return data.decode(encoding)
    except MemoryError as error:
        raise ConfigError("it doesn't fit into memory.") from error
    except OSError as error:
        raise ConfigError(f"it can't be read ({error.strerror or error}).") from error
    except UnicodeError as error:
        raise ConfigError(f"it isn't text in {encoding.upper()} ({error}).") from error


def read_json(path: Path) -> dict[str, object]:
    """The object in a JSON file. Raises ConfigError, which says "it ..." of the file."""
    return as_table(parse_json(read_text(path)))


def read_toml(path: Path) -> dict[str, object]:
    """The table in a TOML file. Raises ConfigError, which says "it ..." of the file."""
    return _parsed("TOML", tomllib.loads, read_text(path))


def parse_json(text: str | bytes) -> object:
    """A JSON value, strictly: no NaN, no repeated keys. Raises ConfigError."""
    return _parsed("JSON", _loads, text)


def as_table(value: object) -> dict[str, object]:
    """A JSON value that must be an object. Raises ConfigError."""
    if not isinstance(value, dict):
        raise ConfigError("it must contain a JSON object.")
    return value


def _parsed(kind: str, parse: Callable[[Any], Any], text: str | bytes) -> Any:
    try:
        return parse(text)
    except RecursionError as error:
        raise ConfigError(f"it isn't valid {kind} (it is nested too deeply).") from error
    except MemoryError as error:
        raise ConfigError("it doesn't fit into memory.") from error
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"it isn't valid {kind} ({error}).") from error


def _loads(text: str | bytes) -> object:
    return json.loads(
        text,
        object_pairs_hook=_unique_keys,
        parse_constant=_no_constant,
        parse_float=_finite,
        parse_int=_short,
    )


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is repeated")
    return values


def _finite(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(f"{number[:20]} is out of range")
    return value


def _short(number: str) -> int:
    if len(number) > MAX_DIGITS:
        raise ValueError(f"a number of {len(number):,} digits is out of range")
    return int(number)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} isn't JSON")
