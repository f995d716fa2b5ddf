"""`mixer info`: what is known of a model."""

from .terminal import options, output


def info(
    model: options.ModelArgument = options.DEFAULT_MODEL,
    format: options.FormatOption = options.Format.TABLE,
) -> None:
    """Show a model's architecture, size, preprocessing, labels, provenance.

    Nothing is fetched: of a published model the catalogue tells.
    """
    from mixer_mlx.convert import describe

    known, assumed = describe(model)
    config = known.config
    record = {
        "model": model,
        "variant": config.variant_name,
        "parameters": config.num_parameters,
        "gmacs": round(config.num_macs / 1e9, 4),
        "tokens": config.num_tokens,
        **known.to_dict(),
        "assumed": list(assumed),
    }
    del record["id2label"]
    record["labels"] = (
        _shown(known.labels) if format is options.Format.TABLE else list(known.labels)
    )
    output.write_record(record, format)


def _shown(labels: tuple[str, ...], most: int = 10) -> str:
    more = len(labels) - most
    return ", ".join(labels[:most]) + (f" and {more} more" if more > 0 else "")
