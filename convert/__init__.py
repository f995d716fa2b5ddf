"""Foreign weights into native models, and back; `load` gives a Classifier."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx
from mlx.utils import tree_flatten

from mixer_mlx import adapters, channels, checkpoint, resolution
from mixer_mlx.choices import Device, DType, ExportFormat
from mixer_mlx.classify import Classifier
from mixer_mlx.errors import CheckpointError, ConversionError, MixerError
from mixer_mlx.features.embed import Embedder, Features
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.quantization import Quantization, cast, quantize
from mixer_mlx.runtime import backend

from . import locate
from .export.options import Exported, ExportOptions
from .fetch.listener import SILENT, Listener
from .importer import NOTHING, Imported, import_model, read_info
from .timm_config import Settings

if TYPE_CHECKING:
    from .export.upload import Uploaded

__all__ = [
    "ExportOptions",
    "Exported",
    "Imported",
    "Listener",
    "Quantization",
    "Settings",
    "convert",
    "describe",
    "export",
    "fuse",
    "import_model",
    "load",
    "load_embedder",
    "resize",
    "upload",
    "weights_bytes",
]

ModelName = str | os.PathLike[str]
"""A published model's name, an address, or a path; see `locate`."""


PRE_LOGITS_FEATURES = Features()
"""What the head classifies: the pre-logits, pooled over tokens."""


def load(
    model: ModelName,
    *,
    dtype: DType | None = None,
    device: Device | None = None,
    listener: Listener = SILENT,
) -> Classifier:
    """A Classifier from a name, an address (`hf://user/repo`, `https://...`) or a path.

    Remote models are fetched and converted once, and kept in the cache. `dtype` is "float32",
    "float16" or "bfloat16" (None: float16 on a GPU, float32 on the CPU); `device` "cpu" or "gpu"
    (None: MLX's default); `listener` follows the download. Raises MixerError.
    """
    chosen = backend.device(device)
    number = backend.dtype_name(backend.dtype(dtype, chosen))
    with mx.stream(chosen):
        imported = open_model(model, dtype=number, listener=listener)
    return Classifier(imported.model, imported.info, chosen)


def load_embedder(
    model: ModelName,
    features: Features = PRE_LOGITS_FEATURES,
    *,
    dtype: DType | None = None,
    device: Device | None = None,
    listener: Listener = SILENT,
) -> Embedder:
    """An Embedder of a model with or without a head; the rest is as for `load`."""
    chosen = backend.device(device)
    number = backend.dtype_name(backend.dtype(dtype, chosen))
    with mx.stream(chosen):
        imported = open_model(model, dtype=number, listener=listener)
    return Embedder(imported.model, imported.info, chosen, features)


def open_model(model: ModelName, *, dtype: DType, listener: Listener = SILENT) -> Imported:
    """As `load`, but the model itself, which may have no head, and what is known of it."""
    address = locate.resolve(model)
    path = address.path or locate.ensure(address, dtype, listener=listener)
    imported = import_model(
        path, dtype=backend.dtype(dtype, backend.device()), open_base=_base_opener(listener)
    )
    for sentence in imported.assumed:
        listener.message(f"Assumed: {sentence}.")
    return imported


def adapters_of(model: ModelName) -> adapters.Adapters | None:
    """What is known of the adapters that a model consists of, or None. Raises MixerError."""
    path = locate.resolve(model).path
    return adapters.read(path) if path and adapters.is_adapters(path) else None


def base_of(model: ModelName) -> str:
    """How adapters that are trained from a model name it: a path is absolute.

    Raises ConversionError if it has adapters itself.
    """
    address = locate.resolve(model)
    if address.path is None or address.entry:
        return address.entry.name if address.entry else address.text
    if adapters.is_adapters(address.path):
        raise ConversionError(
            f"{model} holds adapters, which can't have others; make it a model first: "
            f"`convert.fuse({os.fspath(model)!r})`."
        )
    return os.path.abspath(address.text)


def _base_opener(listener: Listener) -> Callable[[Path], MlpMixer]:
    """How `import_model` opens the model that a folder of adapters was trained from."""

    def opened(folder: Path) -> MlpMixer:
        name = adapters.read(folder).base.model
        try:
            return open_model(base_of(name), dtype="float32", listener=listener).model
        except MixerError as error:
            raise CheckpointError(
                f"{folder} needs the model that it was trained from, {name}: {error}"
            ) from error

    return opened


def fuse(
    model: ModelName,
    out: str | os.PathLike[str],
    *,
    dtype: DType = "float32",
    force: bool = False,
    listener: Listener = SILENT,
) -> Imported:
    """Write adapters, a run's or a folder's, and their base as the native folder `out`.

    Raises MixerError; then nothing is written.
    """
    if adapters_of(model) is None:
        raise ConversionError(
            f"{model} has no adapters, so there is nothing to fuse; use it as it is."
        )
    return convert(model, out, dtype=dtype, force=force, listener=listener)


def convert(
    source: ModelName,
    out: str | os.PathLike[str],
    *,
    dtype: DType | None = None,
    quantization: Quantization | None = None,
    settings: Settings = NOTHING,
    in_channels: int | None = None,
    force: bool = False,
    listener: Listener = SILENT,
) -> Imported:
    """Write `source`, anything that `load` takes, as the native folder `out`, and return it.

    `dtype` None keeps the stored one. `quantization` makes matrices over channels smaller, and the
    rest float16 unless `dtype` says otherwise. `settings` give what the weights leave open, and
    override what the source itself says. `in_channels` adapts a model for RGB to other channels, as
    `mixer_mlx.channels` says. Raises MixerError; then nothing is written.
    """
    checkpoint.check_target(out, force=force)
    imported = _import(source, None if quantization else dtype, settings, listener)
    if in_channels is not None:
        made = channels.adapted(imported.model, imported.info, in_channels)
        imported = Imported(*made, imported.assumed)
    if quantization:
        imported = _quantized(imported, source, dtype or "float16", quantization)
    checkpoint.save(out, imported.model, imported.info, force=force)
    return imported


def _quantized(
    imported: Imported, source: ModelName, dtype: DType, quantization: Quantization
) -> Imported:
    """A quantised model, whose `source` names what it was made from, and the size of that."""
    model, info = imported.model, imported.info
    weights: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    mib = sum(value.nbytes for value in weights.values()) / 2**20
    made = quantize(
        cast(model, backend.dtype(dtype, backend.device())), quantization, origin=info.origin
    )
    origin = {"quantized_from": locate.name_of(source), "quantized_from_mib": round(mib, 2)}
    return dataclasses.replace(
        imported,
        model=made,
        info=info.replace(quantization=quantization, source={**info.source, **origin}),
    )


def export(
    model: ModelName,
    out: str | os.PathLike[str],
    *,
    format: ExportFormat,
    options: ExportOptions = ExportOptions(),  # noqa: B008  # frozen
    force: bool = False,
    listener: Listener = SILENT,
) -> Exported:
    """Write a model for another library: "timm" (a folder), "jax" (.npz) or "onnx" (.onnx).

    timm and jax files are in float32, bit for bit if the model came from float32. Raises
    MixerError; then nothing is written.
    """
    from .export import formats

    formats.check(out, format, options, force=force)
    imported = _import(model, "float32", NOTHING, listener)
    return formats.export(
        imported.model, imported.info, out, format=format, options=options, force=force
    )


def resize(
    model: ModelName,
    out: str | os.PathLike[str],
    *,
    image_size: tuple[int, int],
    dtype: DType | None = None,
    force: bool = False,
    listener: Listener = SILENT,
) -> Imported:
    """Write a model for larger images, (height, width), as the native folder `out`.

    Uses the block-diagonal rule of the paper; see `mixer_mlx.resolution`. Raises MixerError.
    """
    checkpoint.check_target(out, force=force)
    trained = _import(model, dtype, NOTHING, listener)
    old = trained.info
    trained.model.require_unquantized("be resized", old.origin)
    large = resolution.resize(trained.model, image_size)
    info = ModelInfo(
        config=large.config,
        preprocess=dataclasses.replace(old.preprocess, image_size=image_size),
        labels=old.labels,
        source={**old.source, "resized_from": list(old.config.image_size)},
    )
    checkpoint.save(out, large, info, force=force)
    return Imported(large, info, trained.assumed)


def upload(
    model: ModelName,
    repo: str,
    *,
    public: bool = False,
    licence: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    listener: Listener = SILENT,
) -> "Uploaded":
    """Send a model to the repository `repo` ("user/repo") on the Hub, in one commit, with a card.

    In timm's layout if timm can build the model, else in ours. The accuracy on the card is that of
    the run whose folder `model` is, or of a published model. Makes the repository if there is none,
    private unless `public`; replaces a model only with `force`. `licence` is a name as the Hub has
    it (None: that of the original weights). With `dry_run` nothing is sent. Raises MixerError.
    """
    from .export import upload as hub  # which imports the Hub's library
    from .export.card import published_figures, run_figures

    if not dry_run:
        hub.check(repo, force=force)
    imported = _import(model, None, NOTHING, listener)
    return hub.upload(
        imported.model,
        imported.info,
        repo,
        figures=run_figures(Path(model)) or published_figures(imported.info),
        public=public,
        licence=licence,
        dry_run=dry_run,
        listener=listener,
    )


def weights_bytes(model: ModelName) -> int | None:
    """The size of a model's weights file: on this machine, else of the download, if it is known."""
    address = locate.resolve(model)
    path = address.path or locate.found(address)
    if path is None:
        return address.entry.download_bytes if address.entry else None
    if path.is_dir():
        held = adapters.ADAPTERS_FILE if adapters.is_adapters(path) else checkpoint.WEIGHTS_FILE
        path /= held
    return path.stat().st_size if path.is_file() else None


def describe(model: ModelName) -> tuple[ModelInfo, tuple[str, ...]]:
    """What is known of a model, and what `convert` would have to assume. No weights, no network.

    A published model is known before it is fetched; for another address that wasn't fetched yet,
    SourceError says how to fetch it.
    """
    address = locate.resolve(model)
    if address.path is not None:
        return read_info(address.path)
    return locate.describe(address), ()


def _import(
    model: ModelName,
    dtype: DType | None,
    settings: Settings,
    listener: Listener,
) -> Imported:
    chosen = None if dtype is None else backend.dtype(dtype, backend.device())
    address = locate.resolve(model)
    if address.path is not None:
        return import_model(
            address.path, dtype=chosen, settings=settings, open_base=_base_opener(listener)
        )
    fetched = locate.fetch(address, listener=listener)
    return locate.import_fetched(address, fetched, dtype=chosen, settings=settings)
