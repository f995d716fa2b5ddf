"""Which part of a dataset to train on, and which to validate on, by the names of its parts."""

from collections.abc import Collection

from mixer_mlx.errors import ConfigError

WHOLE = ""
"""The name of the only part of a dataset without parts."""
TRAIN = ("train", "training")
VAL = ("val", "valid", "validation", "dev")
TEST = ("test", "testing")
KNOWN = {*TRAIN, *VAL, *TEST}


def parts_for_training(
    parts: Collection[str], train: str | None, val: str | None, fraction: float | None, what: str
) -> tuple[str, str | None]:
    """The parts to train and to validate on; None: a share of the first is to be held back.

    `train` and `val` are names that the user gave; so is `fraction`, which wins over a part that
    could be for validation. Raises ConfigError, which calls the dataset `what`.
    """
    chosen = named_part(parts, train, what) if train else _first(parts, (*TRAIN, WHOLE))
    if chosen is None:
        raise ConfigError(
            f"{what} has the parts {_list(parts)}, none of them for training; choose one with "
            "--train-split."
        )
    if val:
        return chosen, named_part(parts, val, what)
    if fraction is not None or chosen == WHOLE:
        return chosen, None
    rest = [name for name in parts if name != chosen]
    if found := _first(rest, VAL):
        return chosen, found
    if rest:
        other = _first(rest, TEST) or min(rest)
        raise ConfigError(
            f"{what} has the parts {_list(parts)}, none of them for validation; validate on one "
            f"(--val-split {other}), or hold back a share of {chosen} (--val-fraction 0.2)."
        )
    return chosen, None


def part_for_evaluation(parts: Collection[str], split: str | None, what: str) -> str:
    """The part to evaluate on: the one named, or that for validation, for tests, or the only one.

    Raises ConfigError, which calls the dataset `what`.
    """
    if split:
        return named_part(parts, split, what)
    found = _first(parts, (WHOLE, *VAL, *TEST))
    if found is None and len(parts) == 1:
        return min(parts)
    if found is None:
        raise ConfigError(f"{what} has the parts {_list(parts)}; choose one with --split.")
    return found


def named_part(parts: Collection[str], name: str, what: str) -> str:
    """The part called `name`, or like it: "validation" finds `val`. Raises ConfigError."""
    family = next((names for names in (TRAIN, VAL, TEST) if name.lower() in names), ())
    found = _first(parts, (name, *family))
    if found is None:
        has = f"has the parts {_list(parts)}" if set(parts) - {WHOLE} else "is not divided"
        raise ConfigError(f"{what} has no part {name}: it {has}.")
    return found


def _first(parts: Collection[str], names: Collection[str]) -> str | None:
    lower = {part.lower(): part for part in sorted(parts, reverse=True)}
    lower.update((part, part) for part in parts)
    return next((lower[name] for name in names if name in lower), None)


def _list(parts: Collection[str]) -> str:
    return ", ".join(sorted(parts))
