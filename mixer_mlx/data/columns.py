"""Find the columns of a table that hold images and labels.

Parquet files on the Hugging Face Hub name them in the schema's metadata: under `huggingface`, a
JSON object with the features of `datasets`, where a ClassLabel names its classes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixer_mlx.errors import ConfigError
from mixer_mlx.runtime.documents import parse_json

IMAGE_NAMES = ("image", "img", "picture", "photo", "pixels")
PATH_NAMES = ("path", "file_name", "filename", "file", *IMAGE_NAMES)
LABEL_NAMES = ("label", "labels", "class", "target")


@dataclass(frozen=True)
class Columns:
    """The columns that the user chose; None: find them."""

    image: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Found:
    """The columns of a Parquet file: `image` as pyarrow selects it; `names` if a ClassLabel."""

    image: str
    label: str
    names: tuple[str, ...] | None


def find_columns(schema: Any, columns: Columns, what: str) -> Found:
    """The columns in a pyarrow schema of the file `what`. Raises ConfigError."""
    from pyarrow import types

    features = _features(schema)
    binary = [field.name for field in schema if _leaf(field) is not None]
    marked = [name for name in binary if features.get(name, {}).get("_type") == "Image"]
    image = choose("image", columns.image, marked or binary, IMAGE_NAMES, schema.names, what)
    leaf = _leaf(schema.field(image))
    if leaf is None:
        raise ConfigError(
            f"Expected image files in column {image} of {what}, as binary or a struct of bytes and "
            f"path, not {schema.field(image).type}; choose another with `Columns(image=NAME)`."
        )
    plain = [f.name for f in schema if f.name != image and _is_label(f.type)]
    classes = [name for name in plain if features.get(name, {}).get("_type") == "ClassLabel"]
    label = choose("label", columns.label, classes or plain, LABEL_NAMES, schema.names, what)
    kind = schema.field(label).type
    if not _is_label(kind):
        raise ConfigError(
            f"Expected text or whole numbers in label column {label} of {what}, not {kind}; choose "
            "another with `Columns(label=NAME)`."
        )
    names = _class_names(features.get(label, {})) if types.is_integer(kind) else None
    return Found(leaf, label, names)


def choose(
    kind: str,
    given: str | None,
    candidates: Sequence[str],
    usual: Collection[str],
    columns: Sequence[str],
    what: str,
) -> str:
    """The column given, else the candidate with the most usual name, else the only candidate.

    Raises ConfigError that lists the columns.
    """
    if given is not None:
        if given in columns:
            return given
        raise ConfigError(f"{what} has no column {given}; its columns are {', '.join(columns)}.")
    lower = {name.lower(): name for name in candidates}
    by_name = next((lower[name] for name in usual if name in lower), None)
    if by_name or len(candidates) == 1:
        return by_name or candidates[0]
    if candidates:
        found = f"several columns that could be the {kind}: {', '.join(candidates)}"
    else:
        found = f"no column that could be the {kind}; its columns are {', '.join(columns)}"
    raise ConfigError(f"{what} has {found}; choose one with `Columns({kind}=NAME)`.")


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """The features of `datasets` by column; may be empty."""
    try:
        features = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ConfigError):
        return {}
    if not isinstance(features, Mapping):
        return {}
    return {name: value for name, value in features.items() if isinstance(value, dict)}


def _class_names(feature: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = feature.get("names")
    if feature.get("_type") != "ClassLabel" or not isinstance(names, list):
        return None
    return tuple(map(str, names))


def _leaf(field: Any) -> str | None:
    """How pyarrow selects the bytes in a field; None if it holds none."""
    from pyarrow import types

    if types.is_binary(field.type) or types.is_large_binary(field.type):
        return str(field.name)
    if types.is_struct(field.type):
        inner = [f for f in field.type if f.name == "bytes" and _leaf(f)]
        return f"{field.name}.bytes" if inner else None
    return None


def _is_label(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_integer(kind)
        or types.is_boolean(kind)
    )
