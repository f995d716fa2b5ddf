"""Which predictions are shown: `--threshold`, and `--only` certain classes."""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mixer_mlx.errors import ConfigError

if TYPE_CHECKING:
    from mixer_mlx import Classifier, Result


def class_names(classifier: "Classifier") -> list[str]:
    """A name for every class, as predictions have it."""
    classes = range(classifier.config.num_classes)
    return list(classifier.labels) or [f"class {index}" for index in classes]


def find_classes(wanted: Sequence[str], labels: Sequence[str]) -> frozenset[int]:
    """Names or indices -> indices; a name that several classes have means all of them.

    Raises ConfigError for what is neither.
    """
    return frozenset(index for text in wanted for index in _find(text, labels))


def _find(text: str, labels: Sequence[str]) -> list[int]:
    found = [index for index, label in enumerate(labels) if label.casefold() == text.casefold()]
    if found:
        return found
    if text.isascii() and text.isdigit() and int(text) < len(labels):
        return [int(text)]
    near = difflib.get_close_matches(text, labels, n=3) or labels[:3]
    raise ConfigError(
        f"The model has no class {text!r}; use an index from 0 to {len(labels) - 1}, or a name "
        f"such as {', '.join(near)}."
    )


def select(result: "Result", threshold: float, only: frozenset[int]) -> "Result | None":
    """The result without predictions below `threshold`; None if it is not among `only`.

    An image that can't be read is always kept.
    """
    if result.error is not None:
        return result
    shown = tuple(entry for entry in result.predictions if entry.probability >= threshold)
    if only and (not shown or shown[0].index not in only):
        return None
    return dataclasses.replace(result, predictions=shown)
