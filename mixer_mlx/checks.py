"""Checks of fields that come from users and files; each raises ConfigError, naming the field."""

import dataclasses
from collections.abc import Mapping
from typing import get_args

from .errors import ConfigError


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """An integer from `low` to `high`, and not a bool."""
    if type(value) is not int or not low <= value <= high:
        raise wrong(name, value, f"a whole number from {low} to {high}")


def check_number(name: str, value: object, low: float, high: float) -> None:
    """A number from `low` to `high`, and not a bool or NaN."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not low <= value <= high:  # type: ignore[operator]
        raise wrong(name, value, f"a number from {low:g} to {high:g}")


def check_numbers(name: str, values: object, low: float, high: float) -> None:
    """One or more numbers from `low` to `high`."""
    if not isinstance(values, tuple | list) or not values:
        raise wrong(name, values, "a list of numbers, one per channel")
    for value in values:
        check_number(name, value, low, high)


def check_choice(name: str, value: object, choice: object) -> None:
    """One of the values of `choice`, a Literal in `choices`."""
    if value not in get_args(choice):
        raise wrong(name, value, f"one of {', '.join(get_args(choice))}")


def check_flag(name: str, value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise wrong(name, value, "true or false")


def check_pair(name: str, value: object, what: str = "a pair of numbers") -> None:
    """Two of anything."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise wrong(name, value, what)


def check_image_size(name: str, value: object) -> None:
    """(height, width) in pixels, each from 1 to 16,384."""
    check_pair(name, value, "[height, width]")
    for side in value:  # type: ignore[attr-defined]
        check_whole(name, side, 1, 16_384)


def check_keys(kind: str, values: Mapping[str, object], fields_of: type, *, all_: bool) -> None:
    """Only fields of a dataclass, and with `all_` all of them; `kind` is for the message."""
    fields = [field.name for field in dataclasses.fields(fields_of)]
    if unknown := [str(key) for key in values if key not in fields]:
        raise ConfigError(
            f"The {kind} has unknown keys: {', '.join(unknown)}; known are {', '.join(fields)}."
        )
    if all_ and (missing := [name for name in fields if name not in values]):
        raise ConfigError(f"The {kind} lacks {', '.join(missing)}.")


def wrong(name: str, value: object, expected: str) -> ConfigError:
    """The error for a field with an unexpected value."""
    return ConfigError(f"{name} is {value!r}; it must be {expected}.")
