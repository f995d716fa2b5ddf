"""`mixer info` and `mixer models`: what is known of one model, and which are published."""

import dataclasses
from typing import TYPE_CHECKING

from mixer_mlx.choices import DEFAULT_MODEL

from .terminal import options, output

if TYPE_CHECKING:
    from mixer_mlx.catalog import CatalogEntry


def info(
    model: options.ModelArgument = DEFAULT_MODEL,
    format: options.FormatOption = "table",
) -> None:
    """Show a model's architecture, size, preprocessing, labels and provenance.

    Nothing is downloaded: published models come from the catalogue.
    """
    from mixer_mlx.convert import adapters_of, describe, weights_bytes

    known, assumed = describe(model)
    size, own = weights_bytes(model), adapters_of(model)
    config = known.config
    record: dict[str, object] = {
        "model": model,
        "variant": config.variant_name,
        "parameters": config.num_parameters,
        "gmacs": round(config.num_macs / 1e9, 4),
        "tokens": config.num_tokens,
        "weights_mib": None if size is None else round(size / 2**20, 2),
        **({"adapters": dataclasses.asdict(own)} if own else {}),
        **known.to_dict(),
        "assumed": list(assumed) or known.source.get("assumed", []),
    }
    record["source"] = {key: value for key, value in known.source.items() if key != "assumed"}
    del record["id2label"]
    record["labels"] = _shown(known.labels) if format == "table" else list(known.labels)
    output.write_record(record, format)


def _shown(labels: tuple[str, ...], first: int = 10) -> str:
    """The first name of each of the first classes."""
    more = len(labels) - first
    names = [label.partition(", ")[0] for label in labels[:first]]
    return ", ".join(names) + (f" and {more:,} more" if more > 0 else "")


def models(format: options.FormatOption = "table") -> None:
    """List the published models, most accurate first, with their licences."""
    from mixer_mlx.catalog import CATALOG

    # The built-in model, whose classes are others, comes first.
    entries = sorted(CATALOG.values(), key=lambda e: (e.source is not None, -(e.top1 or 0)))
    rows = [_row(entry) for entry in entries]
    if format == "table":
        for row in rows:
            row["note"] = str(row["note"] or "").split(":")[0]
            row["size"] = f"{row['mib']} MiB" if row["mib"] else "built-in"
        shown = [{key: row[key] for key in _TABLE} for row in rows]
        output.write_fitting(shown, least=("licence", "on_disk", "note", "real"))
    else:
        output.write_rows(rows, format)


_TABLE = ("name", "variant", "classes", "size", "top1", "real", "licence", "on_disk", "note")


def _row(entry: "CatalogEntry") -> dict[str, object]:
    from mixer_mlx.convert import locate

    return {
        "name": entry.name,
        "variant": entry.config.variant_name,
        "image_size": list(entry.config.image_size),
        "classes": entry.config.num_classes,
        "parameters": entry.config.num_parameters,
        "mib": round(entry.download_bytes / 2**20, 1),
        "hidden_act": entry.config.hidden_act,
        "top1": entry.top1,
        "real": entry.real,
        "accuracy_source": entry.accuracy_source,
        "licence": entry.licence,
        "source": locate.resolve(entry.name).text,
        "on_disk": locate.is_here(entry.name),
        "note": entry.note,
    }
