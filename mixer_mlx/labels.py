"""Class names: the published lists, and a user's own.

The lists are tables of index, WordNet synset and name, in the order of the checkpoints' outputs, as
in pytorch-image-models (Apache-2.0); the names are WordNet 3.0's.
"""

import csv
import difflib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from .errors import ConfigError
from .runtime.documents import as_table, parse_json, read_text

_FOLDER = Path(__file__).parent / "labels"


def canonical(name: str) -> str:
    """A name in Unicode's composed form (NFC), in which names of classes and splits are compared.

    Disks and archives made on macOS may have the decomposed form of the same letters.
    """
    return unicodedata.normalize("NFC", name)


@cache
def read_list(name: str) -> tuple[str, ...]:
    """The names of a `choices.LabelList`, in the order of the outputs."""
    lines = (_FOLDER / f"{name}.tsv").read_text("utf-8").splitlines()
    return tuple(line.split("\t")[2] for line in lines)


@cache
def read_synsets(name: str) -> tuple[str, ...]:
    """The WordNet ids of a `choices.LabelList`, in the order of the outputs."""
    lines = (_FOLDER / f"{name}.tsv").read_text("utf-8").splitlines()
    return tuple(line.split("\t")[1] for line in lines)


def synsets_of(labels: Sequence[str]) -> tuple[str, ...]:
    """The WordNet ids of labels that are one of the published lists, else none.

    The first synonym of each label is compared.
    """
    first = [label.partition(", ")[0] for label in labels]
    for path in sorted(_FOLDER.glob("*.tsv")):
        rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
        if first == [name.partition(", ")[0] for _, _, name in rows]:
            return tuple(synset for _, synset, _ in rows)
    return ()


def read_map(path: str | os.PathLike[str]) -> dict[str, str]:
    """What a user's file maps names of classes to: labels of a model, its indices, or WordNet ids.

    A `.json` file contains an object; any other file has lines of CLASS,LABEL, with a tab in place
    of the comma if its name ends in `.tsv`. Raises ConfigError.
    """
    path = Path(path)
    try:
        text = read_text(path, "utf-8-sig")
        if path.suffix.lower() == ".json":
            pairs = [(key, str(value)) for key, value in as_table(parse_json(text)).items()]
        else:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            lines = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
            if any(len(row) != 2 for row in lines):
                raise ConfigError(f"expected lines of CLASS{delimiter}LABEL.")
            pairs = [(name.strip(), label.strip()) for name, label in lines]
    except (ConfigError, csv.Error) as error:
        raise ConfigError(f"{path} can't be used as a map of classes: {error}") from error
    return {canonical(name): canonical(label) for name, label in pairs}


def find_label(labels: Sequence[str], name: str) -> int:
    """The output that a name means: a label, one of its synonyms, a WordNet id, or its number.

    Upper and lower case count only if needed. Raises ConfigError for a name that none or several
    labels have.
    """
    wanted = canonical(name).strip()
    ways = (
        [[label] for label in labels],
        [label.split(", ") for label in labels],
        [[synset] for synset in synsets_of(labels)],
        [[str(index)] for index in range(len(labels))],
    )
    for fold in (str, str.casefold):
        for way in ways:
            found = [i for i, names in enumerate(way) if fold(wanted) in map(fold, names)]
            if len(found) == 1:
                return found[0]
            if found:
                raise ConfigError(
                    f"The model has several classes called {name!r}: "
                    f"{', '.join(f'{i} ({labels[i]})' for i in found[:5])}; give the number."
                )
    near = difflib.get_close_matches(wanted, [n for names in ways[1] for n in names], 3)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; see `info.labels`."
    raise ConfigError(f"The model has no class {name!r}{hint}")


def distinct(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels with their numbers where several are the same: "crane (134)" and "crane (517)"."""
    times = Counter(labels)
    return tuple(
        f"{label} ({index})" if times[label] > 1 else label for index, label in enumerate(labels)
    )


def read_file(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names from a user's file, in the order of the outputs.

    A `.json` file contains a list, or an object that maps "0", "1", ... to names (as `id2label` in
    a Hub config); any other file has one name per line. Raises ConfigError.
    """
    path = Path(path)
    try:
        text = read_text(path, "utf-8-sig")
        if path.suffix.lower() != ".json":
            return tuple(line.strip() for line in text.splitlines() if line.strip())
        values = parse_json(text)
    except ConfigError as error:
        raise ConfigError(f"The labels in {path} can't be used: {error}") from error
    if isinstance(values, dict):
        values = [values.get(str(index)) for index in range(len(values))]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConfigError(
            f'{path} must contain a list of names, or an object that maps "0", "1", ... to names.'
        )
    return tuple(values)
