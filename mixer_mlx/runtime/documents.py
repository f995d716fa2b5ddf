"""Read JSON, TOML and text of users and of the network, whatever they hold.

Only regular files of bounded size are read; numbers are finite and of few digits, nesting is
shallow, and keys aren't repeated; `as_dataclass` checks types. What else can go wrong is a
ConfigError, too.
"""

import dataclasses
import json
import math
import os
import tomllib
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mixer_mlx.errors import ConfigError

from .files import open_regular

MAX_BYTES = 64 * 2**20
"""Size of a document."""
MAX_TOML_BYTES = 2**15
"""Of TOML, where a key of many dots takes the square of their number: two seconds at this size."""
MAX_DIGITS = 100
"""Digits of a whole number."""
MAX_DEPTH = 64
"""Lists and objects within each other."""

T = TypeVar("T")


def read_text(path: Path, encoding: str = "utf-8", *, limit: int = MAX_BYTES) -> str:
    """A text file of at most `limit` bytes. Raises ConfigError, which says "it ..." of the file."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size  # `read` allocates what it is asked for
            data = file.read(min(size, limit) + 1)
        if len(data) > limit:
            raise ConfigError(f"it is larger than {limit:,} bytes.")
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
    return _parsed("TOML", tomllib.loads, read_text(path, limit=MAX_TOML_BYTES))


def parse_json(text: str | bytes, *, nan: bool = False) -> Any:
    """A JSON value, strictly: no repeated keys, and NaN only with `nan`. Raises ConfigError."""
    return _parsed("JSON", _loads_nan if nan else _loads, text)


def as_table(value: object) -> dict[str, object]:
    """A JSON value that must be an object. Raises ConfigError."""
    if not isinstance(value, dict):
        raise ConfigError("it must contain a JSON object.")
    return value


def _parsed(kind: str, parse: Callable[[Any], Any], text: str | bytes) -> Any:
    try:
        value = parse(text)
        _check_values(value)
        return value
    except RecursionError as error:
        raise ConfigError(f"it isn't valid {kind} (it is nested too deeply).") from error
    except MemoryError as error:
        raise ConfigError("it doesn't fit into memory.") from error
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"it isn't valid {kind} ({error}).") from error


def as_dataclass(kind: type[T], values: object) -> T:
    """A dataclass from a JSON object with its fields, whose types are checked. Raises ConfigError.

    Lists become tuples; a field may be missing if it has a default.
    """
    table, hints = as_table(values), get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := [name for name in table if name not in fields]:
        raise ConfigError(f"it has an unknown key {unknown[0]!r}.")
    missing = dataclasses.MISSING
    for name, field in fields.items():
        if name not in table and field.default is missing and field.default_factory is missing:
            raise ConfigError(f"it lacks {name!r}.")
    for name, value in table.items():
        if not _fits(value, hints[name]):
            raise ConfigError(f"its {name} is {_short(value)}.")
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in table.items()})


def _fits(value: object, hint: Any) -> bool:
    """Whether a JSON value may stand for a type: plain, a union, a tuple, a mapping, a Literal."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        kinds = inner[:1] * len(value) if ... in inner else inner
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(_fits(one, inner[1]) for one in value.values())
    return type(value) in (int, float) if hint is float else type(value) is hint


def _short(value: object, most: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _check_values(value: object) -> None:
    """Raise ValueError for deep nesting, and the long integers and infinities that TOML has."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        for one in level:
            if type(one) is int and abs(one) >= 10**MAX_DIGITS:
                raise ValueError(f"a number of more than {MAX_DIGITS} digits is out of range")
        level = [inner for one in level for inner in _inner(one)]
        if not level:
            return
    raise RecursionError


def _inner(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _loads(text: str | bytes, constant: Any = None) -> object:
    return json.loads(
        text,
        object_pairs_hook=_unique_keys,
        parse_constant=constant or _no_constant,
        parse_float=_finite,
        parse_int=_few_digits,
    )


def _loads_nan(text: str | bytes) -> object:
    return _loads(text, float)


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is repeated")
    return values


def _finite(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(f"{number[:20]} is out of range")
    return value


def _few_digits(number: str) -> int:
    if len(number) > MAX_DIGITS:
        raise ValueError(f"a number of {len(number):,} digits is out of range")
    return int(number)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} isn't JSON")
