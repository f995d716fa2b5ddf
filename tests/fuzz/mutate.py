"""Damage to files, the same for the same seed: bits, lengths, chunks, and values of JSON."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

Change = Callable[[random.Random, bytearray, Sequence[bytes]], None]

_EDGES = [
    edge % 2**64
    for bits in (7, 8, 15, 16, 24, 31, 32, 48, 63, 64)
    for edge in (2**bits - 1, 2**bits, 2**bits + 1, -(2**bits))
] + [0, 1, 2, 3]

ODD_VALUES: list[object] = [
    None, True, False, 0, 1, -1, 2, 3, 255, 2**31, 2**32, 2**53, 2**63, 2**64, -(2**63), 10**18,
    10**400, 0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), "", "0", "224",
    "gelu", "\x1b[2J", "\u202e", "\ud800", "x" * 5000, "../../etc/passwd", [], [[]], [0, 0],
    [224, 224], [1, 2, 3], [2**40, 2**40], [None] * 3, [0.5] * 1000, {}, {"": 0}, {"0": "a"},
]  # fmt: skip
"""What a number, a name or a table may be replaced with."""


def rng(seed: int, parser: str, number: int) -> random.Random:
    """The source of chance for one case: the same on every machine and Python."""
    return random.Random(f"{seed}/{parser}/{number}")  # noqa: S311  # not for secrets


def mutate(chance: random.Random, samples: Sequence[bytes]) -> bytes:
    """One of the samples with one to four changes; now and then a long run of noise instead."""
    data = bytearray(chance.choice(samples))
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4))):
        chance.choice(_CHANGES)(chance, data, samples)
    return bytes(data[: 2**20])


def _flip_bits(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    for _ in range(chance.choice((1, 1, 2, 8, 32))):
        if data:
            data[_place(chance, data)] ^= 1 << chance.randrange(8)


def _set_bytes(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    for _ in range(chance.choice((1, 1, 2, 8))):
        if data:
            data[_place(chance, data)] = chance.choice(
                (0, 1, 0x7F, 0x80, 0xFF, chance.getrandbits(8))
            )


def _set_integer(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A length or a size: an edge of the range, or close to the current value."""
    width = chance.choice((1, 2, 2, 4, 4, 8))
    order = chance.choice(("little", "big"))
    at = _place(chance, data)
    near = int.from_bytes(data[at : at + width], order) + chance.choice(
        (-2, -1, 1, 2, 8, len(data))
    )
    value = chance.choice((chance.choice(_EDGES), near, chance.getrandbits(64)))
    data[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, order)


def _truncate(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _delete(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, end = _part(chance, data)
    del data[start:end]


def _repeat(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, end = _part(chance, data)
    data[start:start] = data[start:end] * chance.choice((1, 1, 2, 7, 50))


def _move(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, end = _part(chance, data)
    chunk = bytes(data[start:end])
    del data[start:end]
    at = chance.randrange(len(data) + 1)
    data[at:at] = chunk


def _splice(chance: random.Random, data: bytearray, samples: Sequence[bytes]) -> None:
    """A chunk of another sample, over or between what is here."""
    other = chance.choice(samples)
    start, end = _part(chance, other)
    at = chance.randrange(len(data) + 1)
    until = at + (end - start if chance.random() < 0.5 else 0)
    data[at:until] = other[start:end]


def _insert_noise(chance: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.randbytes(chance.choice((1, 2, 4, 16, 300)))


def _append(chance: random.Random, data: bytearray, samples: Sequence[bytes]) -> None:
    data += chance.choice((b"\0", b"\0" * 1000, chance.choice(samples)))


_CHANGES: list[Change] = [
    _flip_bits, _flip_bits, _set_bytes, _set_integer, _set_integer, _set_integer, _truncate,
    _delete, _repeat, _move, _splice, _insert_noise, _append,
]  # fmt: skip


def _place(chance: random.Random, data: bytearray) -> int:
    """An index, more often near the start, where headers are, or the end, where directories are."""
    reach = chance.choice((len(data), len(data), 64, 16))
    at = chance.randrange(max(1, min(reach, len(data))))
    return len(data) - 1 - at if data and chance.random() < 0.25 else at


def _part(chance: random.Random, data: bytes | bytearray) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.choice((1, 2, 4, 8, 12, 64, 512)))


def mutate_json(chance: random.Random, samples: Sequence[Any]) -> bytes:
    """JSON with one to four values replaced, removed, renamed or nested; a third damaged as bytes.

    What Python's `json` writes and others refuse, such as NaN, is kept.
    """
    value = deepcopy(chance.choice(samples))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        value = _change_value(chance, value, samples)
    text = json.dumps(value, ensure_ascii=chance.random() < 0.9).encode(errors="surrogatepass")
    text = text.replace(b"1e+308", b"1e999")  # valid JSON, and infinite
    pick = chance.random()
    if pick < 0.1:
        return _repeat_key(text)
    return mutate(chance, [text]) if pick < 0.33 else text


def _change_value(chance: random.Random, value: Any, samples: Sequence[Any]) -> Any:
    """One change at one place of a tree, each place as probable as the next."""
    places = list(_places(value))
    if not places:
        return deepcopy(chance.choice(ODD_VALUES))
    holder, key = chance.choice(places)
    change = chance.randrange(8)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, dict):
        holder[chance.choice(("", "0", "image_size", "\ud800", "x" * 300))] = holder.pop(key)
    elif change == 2:
        holder[key] = deepcopy(chance.choice(samples))
    elif change == 3:
        for _ in range(chance.choice((2, 100))):
            holder[key] = [holder[key]] if chance.random() < 0.5 else {"a": holder[key]}
    elif change == 4 and type(holder[key]) is int:
        holder[key] = holder[key] * chance.choice((-1, 2, 3, 10**6)) + chance.choice((-1, 0, 1))
    else:
        holder[key] = deepcopy(chance.choice(ODD_VALUES))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every dict or list in a tree, with each of its keys or indices."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _repeat_key(text: bytes) -> bytes:
    head, comma, rest = text.partition(b",")
    return head + comma + head.lstrip(b"{") + comma + rest if comma else text
