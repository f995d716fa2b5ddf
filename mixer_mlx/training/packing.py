"""The arrays of a training state, put together to few long ones: a GPU needs a kernel for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import mlx.core as mx

from .optimizer import Kind, Weights, kinds
from .recipe import Recipe

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Packing:
    """Which parameters lie one after the other in one array: those that are updated alike.

    `groups`: the array's name -> its parameters. A parameter that is alone keeps name and shape.
    """

    groups: Mapping[str, tuple[str, ...]]
    shapes: Shapes
    kinds: Mapping[str, Kind]

    @classmethod
    def of(cls, recipe: Recipe, shapes: Shapes) -> "Packing":
        """The packing of the trained parameters, by their names and shapes."""
        kind_of = kinds(recipe, shapes)
        alike: dict[Kind | str, list[str]] = {}
        for name, kind in kind_of.items():
            # Muon multiplies matrices, and needs each by itself.
            alike.setdefault(name if kind.muon else kind, []).append(name)
        groups = {_title(names): tuple(names) for names in alike.values()}
        return cls(groups, shapes, {key: kind_of[names[0]] for key, names in groups.items()})

    def pack(self, weights: Weights) -> Weights:
        """Arrays by parameter -> by group, without the groups that aren't there."""
        return {
            key: mx.concatenate([weights[name].reshape(-1) for name in names])
            if names[1:]
            else weights[key]
            for key, names in self.groups.items()
            if names[0] in weights
        }

    def unpack(self, packed: Weights) -> Weights:
        """The inverse: parts of the long arrays, without copying them."""
        found = {}
        for key, value in packed.items():
            names = self.groups[key]
            sizes = [prod(self.shapes[name]) for name in names]
            for name, size, end in zip(names, sizes, accumulate(sizes), strict=True):
                part = value[end - size : end] if names[1:] else value
                found[name] = part.reshape(self.shapes[name])
        return {name: found[name] for name in self.shapes if name in found}

    def packed(self, arrays: dict[str, Weights]) -> dict[str, Weights]:
        """A training state's arrays by group, whether they were or not."""
        if arrays["weights"].keys() == self.groups.keys():
            return arrays
        return {
            kind: value if kind == "counters" else self.pack(value)
            for kind, value in arrays.items()
        }

    def unpacked(self, arrays: dict[str, Weights]) -> dict[str, Weights]:
        """The inverse."""
        if arrays["weights"].keys() != self.groups.keys():
            return arrays
        return {
            kind: value if kind == "counters" else self.unpack(value)
            for kind, value in arrays.items()
        }


def _title(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if names[1:] else names[0]
